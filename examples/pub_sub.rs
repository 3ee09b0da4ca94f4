//! A publisher, and a live chart in every page that subscribes: `cargo run --release --example pub-sub`.
//!
//! Eight sensors are read five hundred times a second: four thousand points a second to each page. What a page misses while its
//! network is away it gets afterwards, as far back as the topic keeps it.

mod web;

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use wireloom_messaging::Data;
use wireloom_messaging::server::{Handlers, Server};
use wireloom_messaging::topics::{TopicAction, TopicOptions, Topics};

const SENSORS: usize = 8;
const PERIOD: Duration = Duration::from_millis(2);
const KEPT: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), web::Failure> {
    let options = TopicOptions::new().history(KEPT.as_millis() as usize / 2, KEPT);
    let topics = Topics::new()
        .topic("threads", options.history_bytes(8 << 20))
        // Only the server publishes.
        .authorise(async |access| access.action != TopicAction::Publish);
    let server = Server::builder().topics(topics).build(Handlers::new());
    tokio::spawn(publish(server.clone()));
    web::serve("pub-sub", FILES, server).await
}

const FILES: &[web::File] = &[
    ("/", web::HTML, include_str!("pub_sub/index.html")),
    ("/style.css", web::CSS, include_str!("pub_sub/style.css")),
    ("/chart.js", web::JAVASCRIPT, include_str!("pub_sub/chart.js")),
    ("/page.js", web::JAVASCRIPT, include_str!("pub_sub/page.js")),
    ("/icon.svg", web::SVG, include_str!("pub_sub/icon.svg")),
];

async fn publish(server: Server) {
    let mut ticks = tokio::time::interval(PERIOD);
    // Ticks that were missed are made up for: readings have the times at which they were due.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for nth in 0_u64.. {
        ticks.tick().await;
        // Milliseconds as f64, and a reading of each sensor as f32, little-endian: 40 bytes.
        let mut message = Vec::with_capacity(8 + 4 * SENSORS);
        let seconds = PERIOD.as_secs_f64() * nth as f64;
        message.extend_from_slice(&(seconds * 1000.0).to_le_bytes());
        for sensor in 0..SENSORS {
            message.extend_from_slice(&reading(sensor, nth, seconds).to_le_bytes());
        }
        if let Err(error) = server.publish("threads", Data::binary(message)).await {
            eprintln!("not published: {error}");
        }
    }
}

/// What a sensor on a thread of a loom may read: a slow swing, the beat of the reed, a pluck now and then, and noise.
fn reading(sensor: usize, nth: u64, seconds: f64) -> f32 {
    let phase = sensor as f64;
    let swing = (seconds * (0.35 + 0.06 * phase) + phase).sin() * 0.45;
    let beat = ((seconds * 1.5 + phase * 0.37).fract() * -9.0).exp() * (seconds * 55.0).sin() * 0.5;
    let pluck = ((seconds * 0.23 + phase * 0.71).fract() * -14.0).exp() * (seconds * 24.0 + phase).sin();
    // The bits of a number, well mixed, are noise enough.
    let mixed = (nth * SENSORS as u64 + sensor as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let noise = f64::from((mixed >> 40) as u32) / f64::from(1 << 24) - 0.5;
    (swing + beat + pluck + noise * 0.09) as f32
}
