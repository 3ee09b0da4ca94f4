//! One suite of behaviours, over every transport: what a client sees of a server, message by message.
//!
//! Numbers of sections are those of docs/webwire.md.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod admission;
mod behaviours;
mod chaos;
mod client_chaos;
mod cluster;
mod mounted;
mod nats;
mod network;
mod peer;
mod rig;
mod websocket_only;
mod webtransport_only;

use rig::{Memory, Multi, Single, WebSocket};

/// Runs each behaviour over each transport.
macro_rules! conformance {
    ($($module:ident :: { $($test:ident)* })*) => {
        conformance!(@rig memory Memory $($module { $($test)* })*);
        conformance!(@rig websocket WebSocket $($module { $($test)* })*);
        conformance!(@rig webtransport Single $($module { $($test)* })*);
        conformance!(@rig webtransport_multi Multi $($module { $($test)* })*);
    };
    (@rig $rig:ident $type:ident $($module:ident { $($test:ident)* })*) => {
        mod $rig {
            $(mod $module {
                $(#[tokio::test]
                async fn $test() {
                    crate::behaviours::$module::$test::<crate::$type>().await;
                })*
            })*
        }
    };
}

/// Runs the behaviours of topics on NATS, each with a nats-server of its own.
macro_rules! on_nats {
    ($($test:ident)*) => {
        mod on_nats {
            $(#[tokio::test]
            async fn $test() {
                let nats = std::sync::Arc::new(crate::nats::NatsServer::start());
                let test = crate::behaviours::topics::$test::<crate::nats::OnNats>();
                crate::nats::NATS.scope(nats, test).await;
            })*
        }
    };
}

on_nats! {
    messages_reach_all_subscribers
    history_and_recovery
    publications_are_not_repeated
    ephemeral_messages
    presence
    a_session_is_present_once
    ordinary_signals
    what_is_refused
}

conformance! {
    messages::{
        the_first_message_is_accept_conf
        requests_in_every_encoding
        every_kind_of_reply
        replies_that_cannot_be_sent
        identifiers_are_opaque
        signals_both_ways
        a_signal_of_a_handler_precedes_its_reply
        early_signals_wait_for_the_client
        what_only_servers_send_is_ignored
        the_largest_message_passes
        replies_and_signals_fit_the_buffer
        typed_handlers
        broadcast_and_user_data
        a_handler_reaches_its_server
    }
    order::{
        one_handler_at_a_time
        two_handlers_overtake_and_the_third_waits
        unlimited_handlers
        heartbeats_bypass_handlers
    }
    endings::{
        a_hook_that_hangs_holds_up_nothing
        a_hook_that_never_connects
        malformed_messages_close
        one_byte_too_many_closes
        silence_closes
        heartbeats_keep_alive
        a_closed_connection_answers_first
        a_dismissed_client_is_told
        an_aborted_connection_says_why
        shutdown
        shutdown_without_connections
        limits_of_connections
        hooks_are_called_once
    }
    handlers::{
        a_lost_client_cancels_its_handlers
        a_hanging_handler_is_dropped
        a_handler_that_takes_too_long
        a_timeout_beyond_the_clock
        panics_harm_nobody_else
    }
    consumers::{
        a_slow_consumer_is_disconnected
        a_slow_consumer_is_refused
        waiting_for_a_slow_consumer
        who_does_not_read_is_not_read_from
    }
    sessions::{
        login_and_logout
        restored_after_the_connection_is_lost
        keys_that_are_none
        limit_of_connections
        disabled
        restoring_replaces
        closed_by_the_server
        restored_during_a_login
        a_store_that_hangs
    }
    topics::{
        messages_reach_all_subscribers
        history_and_recovery
        publications_are_not_repeated
        ephemeral_messages
        presence
        a_session_is_present_once
        ordinary_signals
        what_is_refused
        without_topics
        the_oldest_are_dropped_for_a_slow_subscriber
        the_newest_are_dropped_for_a_slow_subscriber
        a_slow_subscriber_is_disconnected
    }
}
