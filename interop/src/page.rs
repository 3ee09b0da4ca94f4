//! The pages that browsers are driven through, over plain HTTP on localhost (a secure context for browsers).
//!
//! A browser shows `controller.html`, which long-polls for orders and opens one window (`case.html`) for each job. A window
//! fetches its job, runs the case of `cases.js` or `web_api.js` that it names, and posts the result.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// Shorter than any time-out that a browser has for a request.
const LONG_POLL: Duration = Duration::from_secs(20);

struct Job {
    case: Value,
    done: mpsc::Sender<Value>,
}

#[derive(Default)]
struct Tables {
    next_job: u64,
    jobs: HashMap<u64, Job>,
    orders: HashMap<String, Vec<Value>>,
    /// The demo page of `wireloom serve`, without a slash at the end.
    demo: Option<String>,
}

/// The page server; cheap to clone.
#[derive(Clone, Default)]
pub struct Pages {
    tables: Arc<Mutex<Tables>>,
    ordered: Arc<Notify>,
}

impl Pages {
    /// Serves on a free port of 127.0.0.1 until the runtime ends.
    pub async fn serve() -> crate::Result<(Self, SocketAddr)> {
        let pages = Self::default();
        let app = Router::new()
            .route(
                "/controller",
                get(|| async { Html(include_str!("../browser/controller.html")) }),
            )
            .route("/case", get(|| async { Html(include_str!("../browser/case.html")) }))
            .route("/cases.js", get(|| script(include_str!("../browser/cases.js"))))
            .route("/web_api.js", get(|| script(include_str!("../browser/web_api.js"))))
            .route("/lab.js", get(|| script(include_str!("../browser/lab.js"))))
            .route("/orders/{browser}", get(order))
            .route("/jobs/{job}", get(job).post(result))
            .route("/demo/{*file}", get(demo))
            .route("/demo/", get(demo))
            .route("/certificate-hashes", get(demo))
            .with_state(pages.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok((pages, address))
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Opens a window of `browser` for the case; the receiver gets a result each time that the window's page has run it.
    pub fn open(&self, browser: &str, name: &str, options: &Value) -> (u64, mpsc::Receiver<Value>) {
        let (done, results) = mpsc::channel();
        let mut tables = self.tables();
        tables.next_job += 1;
        let id = tables.next_job;
        tables.jobs.insert(
            id,
            Job {
                case: json!({"name": name, "options": options}),
                done,
            },
        );
        drop(tables);
        self.order(browser, "open", id);
        (id, results)
    }

    /// Closes the window of a job.
    pub fn close(&self, browser: &str, job: u64) {
        self.order(browser, "close", job);
    }

    /// Reloads the window of a job, which runs its case again.
    pub fn reload(&self, browser: &str, job: u64) {
        self.order(browser, "reload", job);
    }

    /// Shows the demo page of a `wireloom serve` at `/demo/`, so that a case of the same origin can use it like a person.
    pub fn show_demo(&self, page: &str) {
        self.tables().demo = Some(page.trim_end_matches('/').to_owned());
    }

    fn order(&self, browser: &str, order: &str, job: u64) {
        self.tables()
            .orders
            .entry(browser.to_owned())
            .or_default()
            .push(json!({"order": order, "job": job}));
        self.ordered.notify_waiters();
    }

    fn next_order(&self, browser: &str) -> Option<Value> {
        let mut tables = self.tables();
        let orders = tables.orders.get_mut(browser)?;
        (!orders.is_empty()).then(|| orders.remove(0))
    }
}

async fn script(text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript")], text)
}

async fn demo(State(pages): State<Pages>, uri: Uri) -> Result<impl IntoResponse, StatusCode> {
    let page = pages.tables().demo.clone().ok_or(StatusCode::NOT_FOUND)?;
    let mut curl = tokio::process::Command::new("curl");
    curl.args([
        "--silent",
        "--fail",
        "--max-time",
        "60",
        &format!("{page}{}", uri.path()),
    ]);
    let output = curl.output().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let kind = match uri.path().rsplit('.').next() {
        Some("js") => "text/javascript",
        Some("css") => "text/css",
        Some("svg") => "image/svg+xml",
        _ if uri.path().ends_with('/') => "text/html",
        _ => "application/json",
    };
    if output.status.success() {
        Ok(([(header::CONTENT_TYPE, kind)], output.stdout))
    } else {
        Err(StatusCode::BAD_GATEWAY)
    }
}

async fn order(State(pages): State<Pages>, Path(browser): Path<String>) -> Result<Json<Value>, StatusCode> {
    let wait = async {
        loop {
            let ordered = pages.ordered.notified();
            tokio::pin!(ordered);
            ordered.as_mut().enable(); // before looking, or an order between the two is missed
            if let Some(order) = pages.next_order(&browser) {
                return order;
            }
            ordered.await;
        }
    };
    tokio::time::timeout(LONG_POLL, wait)
        .await
        .map(Json)
        .map_err(|_| StatusCode::NO_CONTENT)
}

async fn job(State(pages): State<Pages>, Path(job): Path<u64>) -> Result<Json<Value>, StatusCode> {
    pages
        .tables()
        .jobs
        .get(&job)
        .map(|job| Json(job.case.clone()))
        .ok_or(StatusCode::NOT_FOUND)
}

async fn result(State(pages): State<Pages>, Path(job): Path<u64>, body: String) -> StatusCode {
    let Ok(value) = serde_json::from_str(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    let tables = pages.tables();
    let Some(job) = tables.jobs.get(&job) else {
        return StatusCode::NOT_FOUND;
    };
    // A test that has given up no longer listens; the page need not know.
    let _ = job.done.send(value);
    StatusCode::NO_CONTENT
}
