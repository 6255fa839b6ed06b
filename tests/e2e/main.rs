//! The promises to the Main Server, kept over HTTP by a real agent on a real engine: a file per promise.

#[path = "../support/mod.rs"]
mod support;

mod a_stop_outlives_the_engine;
mod adoption;
mod answers;
mod compose_features;
mod disk;
mod firewall;
mod host_ports;
mod knowing;
mod leftovers;
mod managed_by_labels;
mod neighbours;
mod platforms;
mod pulls;
mod quotas;
mod stats;
mod subnet_pool;
mod tenant;
mod the_whole_life;
