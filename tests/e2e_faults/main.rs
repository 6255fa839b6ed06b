//! What goes wrong, over HTTP on a real engine: a file per promise.

#[path = "../support/mod.rs"]
mod support;

mod auditor;
mod scene;

mod a_prune_is_an_operation;
mod broken_updates_roll_back;
mod engine_goes_away;
mod failed_first_provision_leaves_nothing;
mod logs_hold_up;
mod many_at_once;
mod one_container_is_wedged;
mod refusals_change_nothing;
mod secrets_stay_secret;
mod stops_gracefully;
mod storm;
mod the_agent_is_killed;
mod the_descriptors_run_out;
mod the_disk_says_no;
mod the_engine_miscounts;
mod the_main_server_steers_two_hosts;
