//! Everything that the double holds, and how tests set it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::clock::{Clock, Millis};
use super::faults::{Outcome, Rule, Work, like};
use super::group::Group;
use super::operations::Operation;
use super::sockets::Socket;
use super::storage::Account;
use super::tokens::Tokens;

/// How long things take, in milliseconds of the double's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delays {
    /// From the acceptance of a change until it is worked on.
    pub(crate) pending: Millis,
    /// Until all images are there.
    pub(crate) pull: Millis,
    /// From then (and the last init container) until the containers run.
    pub(crate) start: Millis,
    /// How long an init container runs whose program has no end.
    pub(crate) init: Millis,
    /// How long `oneshot` and `crash` run.
    pub(crate) run: Millis,
    /// How long the first restart waits; each further one waits twice as long.
    pub(crate) back_off: Millis,
    /// How long a `sick` container is left alone.
    pub(crate) sick: Millis,
    /// Until a stop is done.
    pub(crate) stop: Millis,
    /// Until a group is gone.
    pub(crate) delete: Millis,
    /// Until a mount that fails (or an init container that fails again and again) fails the group.
    pub(crate) give_up: Millis,
    /// How long after `pending` the address is known.
    pub(crate) ip: Millis,
    /// How long a resource is missing in `/resources` after it was made.
    pub(crate) index: Millis,
    /// How long the name of a deleted share is refused.
    pub(crate) share: Millis,
    /// How long a new storage account takes.
    pub(crate) account: Millis,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            pending: 15,
            pull: 30,
            start: 15,
            init: 20,
            run: 30,
            back_off: 30,
            sick: 60,
            stop: 40,
            delete: 30,
            give_up: 300,
            ip: 0,
            index: 0,
            share: 60,
            account: 30,
        }
    }
}

/// How the client is told about an operation that takes a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    AsyncOperation,
    Location,
    Both,
    /// Not at all: the resource itself says when it is done.
    Neither,
}

/// What tests may set at any time.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) delays: Delays,
    pub(crate) form: Form,
    /// Seconds of `Retry-After` at the beginning of an operation and at each poll that finds it running.
    pub(crate) retry_after: Option<u64>,
    /// A DELETE is answered with 200 and the body, and the group is gone.
    pub(crate) delete_at_once: bool,
    /// How many items a page has.
    pub(crate) page: usize,
    /// Where `nextLink` leads instead of to the double.
    pub(crate) next_links: Option<String>,
    /// How many seconds a new token is good for.
    pub(crate) token_seconds: u64,
    /// How many creations (and as many deletions) a subscription may begin per region, and in which time.
    pub(crate) writes: Vec<(usize, Millis)>,
    /// Status of the refusal of a DNS label that is taken; no public source fixes it.
    pub(crate) taken_status: u16,
    /// Lists of shares have their metadata. Microsoft's examples have none.
    pub(crate) listed_metadata: bool,
    /// Sockets send binary messages instead of text.
    pub(crate) binary_sockets: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            delays: Delays::default(),
            form: Form::AsyncOperation,
            retry_after: None,
            delete_at_once: false,
            page: 2,
            next_links: None,
            token_seconds: 3599,
            writes: vec![(100, 300_000), (300, 3_600_000)],
            taken_status: 400,
            listed_metadata: false,
            binary_sockets: false,
        }
    }
}

/// What a subscription may use in a region.
#[derive(Debug, Clone)]
pub(crate) struct Region {
    /// CPUs and GB of one group.
    pub(crate) max: (f64, f64),
    pub(crate) cores: f64,
    pub(crate) groups: usize,
    /// Whether there is room for a new group.
    pub(crate) capacity: bool,
}

impl Default for Region {
    fn default() -> Self {
        Self { max: (4.0, 16.0), cores: 100.0, groups: 100, capacity: true }
    }
}

#[derive(Default)]
pub(super) struct Subscription {
    pub(super) regions: BTreeMap<String, Region>,
    /// By name in lower case.
    pub(super) resource_groups: BTreeMap<String, ResourceGroup>,
}

pub(super) struct ResourceGroup {
    pub(super) name: String,
    pub(super) location: String,
    pub(super) tags: Value,
}

/// A call as it was heard, without its token.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: BTreeMap<String, String>,
    /// Null if there was none or it was no JSON.
    pub(crate) body: Value,
    /// Milliseconds of the double's clock.
    pub(crate) at: u64,
    /// 0 if it got no answer.
    pub(crate) status: u16,
}

/// A container group by subscription, resource group and name, in lower case.
pub(super) type Key = (String, String, String);

pub(super) fn key(subscription: &str, resource_group: &str, name: &str) -> Key {
    (subscription.to_lowercase(), resource_group.to_lowercase(), name.to_lowercase())
}

/// A location in its short form: `West US` is `westus`.
pub(super) fn short(location: &str) -> String {
    location.to_lowercase().replace(' ', "")
}

pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) endpoint: String,
    pub(super) authority: String,
    pub(super) sockets_at: String,
    pub(super) subscriptions: BTreeMap<String, Subscription>,
    pub(super) groups: BTreeMap<Key, Group>,
    /// By name, which is the only one in the world.
    pub(super) accounts: BTreeMap<String, Account>,
    pub(super) operations: BTreeMap<String, Operation>,
    pub(super) sockets: BTreeMap<String, Socket>,
    pub(super) tokens: Tokens,
    pub(super) rules: Vec<Rule>,
    pub(super) outcomes: Vec<(String, Work, Outcome)>,
    /// Users and passwords of registries that let nobody else in, by host.
    pub(super) registries: BTreeMap<String, (String, String)>,
    /// Region and DNS label of strangers.
    pub(super) taken: BTreeSet<(String, String)>,
    /// Subscription, region, what, and when, for the limits of writes.
    pub(super) writes: Vec<(String, String, &'static str, Millis)>,
    /// Before when a call would ignore a `Retry-After`, by method and path.
    pub(super) not_before: BTreeMap<String, Millis>,
    pub(super) heard: Vec<Heard>,
    pub(super) violations: Vec<String>,
    /// What was typed into terminals.
    pub(super) typed: Vec<String>,
    /// Sockets that were opened before this changed are cut.
    pub(super) cuts: u32,
    count: u64,
}

impl State {
    pub(super) fn new(endpoint: String, authority: String, sockets_at: String, tokens: Tokens) -> Self {
        Self {
            settings: Settings::default(),
            endpoint,
            authority,
            sockets_at,
            subscriptions: BTreeMap::new(),
            groups: BTreeMap::new(),
            accounts: BTreeMap::new(),
            operations: BTreeMap::new(),
            sockets: BTreeMap::new(),
            tokens,
            rules: Vec::new(),
            outcomes: Vec::new(),
            registries: BTreeMap::new(),
            taken: BTreeSet::new(),
            writes: Vec::new(),
            not_before: BTreeMap::new(),
            heard: Vec::new(),
            violations: Vec::new(),
            typed: Vec::new(),
            cuts: 0,
            count: 0,
        }
    }

    /// A number that was not given before.
    pub(super) fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    pub(super) fn violation(&mut self, text: impl Into<String>) {
        self.violations.push(text.into());
    }

    /// Forgets what is gone by now.
    pub(super) fn sweep(&mut self, now: Millis) {
        self.groups.retain(|_, group| !group.gone(now));
    }

    /// What was made up for the next operation of this kind on this group.
    pub(super) fn outcome(&mut self, name: &str, work: Work) -> Option<Outcome> {
        let at = self.outcomes.iter().position(|(pattern, kind, _)| *kind == work && like(pattern, name))?;
        Some(self.outcomes.remove(at).2)
    }

    /// Seconds to wait if a subscription has written too often in a region; else the write is counted.
    pub(super) fn throttle(
        &mut self,
        subscription: &str,
        region: &str,
        what: &'static str,
        now: Millis,
    ) -> Option<u64> {
        let mine =
            |write: &&(String, String, &str, Millis)| write.0 == subscription && write.1 == region && write.2 == what;
        for (count, window) in &self.settings.writes {
            let recent: Vec<Millis> =
                self.writes.iter().filter(mine).map(|write| write.3).filter(|at| at + window > now).collect();
            if recent.len() >= *count {
                let free = recent.iter().min().map_or(now, |at| at + window);
                return Some(
                    Duration::from_millis(free.saturating_sub(now))
                        .as_millis()
                        .div_ceil(1000)
                        .max(1)
                        .try_into()
                        .unwrap_or(u64::MAX),
                );
            }
        }
        self.writes.push((subscription.to_owned(), region.to_owned(), what, now));
        None
    }

    /// How many creations are left in each window, as headers tell it.
    pub(super) fn left(&self, subscription: &str, region: &str, what: &str, now: Millis) -> Vec<usize> {
        let windows = self.settings.writes.iter();
        windows
            .map(|(count, window)| {
                let recent = self
                    .writes
                    .iter()
                    .filter(|w| w.0 == subscription && w.1 == region && w.2 == what && w.3 + window > now);
                count.saturating_sub(recent.count())
            })
            .collect()
    }

    /// Groups as the outside sees them.
    pub(super) fn views(&self, now: Millis, clock: &Clock) -> Vec<Value> {
        self.groups.values().filter(|group| !group.gone(now)).map(|group| group.view(now, clock, true)).collect()
    }
}
