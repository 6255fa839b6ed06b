//! How a container's runs have ended, and when that makes a crash loop.
//!
//! The engine waits longer and longer before it starts a container again, up to a minute, but begins anew with 100 ms once
//! it has run for 10 seconds. So neither its waiting nor its state says "crash loop": a container that lives for 11 seconds
//! is running whenever somebody looks. What says it is how often it has died.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::Ended;
use crate::domain::Exit;

/// So many deaths within [`WINDOW`] are a crash loop.
const LOOP: usize = 5;
const WINDOW: Duration = Duration::from_secs(10 * 60);
/// What has stayed up for so long is out of it: twice the engine's longest pause.
const CALM: Duration = Duration::from_secs(2 * 60);
/// How many exit codes are remembered and told.
const EXITS: usize = 10;
/// Deaths that are remembered: more than any question here needs.
const DEATHS: usize = 16;

/// The ends of one container's runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Deaths {
    exits: VecDeque<Exit>,
    /// Those that nobody asked for.
    own: VecDeque<Instant>,
    /// What was last said about it.
    looping: bool,
}

impl Deaths {
    pub(super) fn add(&mut self, ended: &Ended, now: Instant) {
        if self.exits.len() == EXITS {
            self.exits.pop_front();
        }
        self.exits.push_back(Exit { code: ended.code, at: ended.at });
        if ended.requested {
            // Whoever stops it has seen it; what comes now is another life.
            self.own.clear();
            return;
        }
        if self.own.len() == DEATHS {
            self.own.pop_front();
        }
        self.own.push_back(now);
    }

    /// It does not run and is not started again: that is an end and no loop.
    pub(super) fn rest(&mut self) {
        self.own.clear();
    }

    pub(super) fn exits(&self) -> Vec<Exit> {
        self.exits.iter().copied().collect()
    }

    pub(super) fn is_loop(&self, now: Instant) -> bool {
        let recent = |death: &&Instant| now.saturating_duration_since(**death) < WINDOW;
        let calm = self.own.back().is_none_or(|last| now.saturating_duration_since(*last) >= CALM);
        !calm && self.own.iter().filter(recent).count() >= LOOP
    }

    /// Whether a loop has begun since this was last asked.
    pub(super) fn has_begun_to_loop(&mut self, now: Instant) -> bool {
        let is_loop = self.is_loop(now);
        !std::mem::replace(&mut self.looping, is_loop) && is_loop
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ContainerId, ServiceName, Subdomain};

    fn end(code: i64, requested: bool) -> Ended {
        Ended {
            tenant: Subdomain::parse("acme").unwrap(),
            service: ServiceName::parse("web").unwrap(),
            container: ContainerId::parse(&"a".repeat(64)).unwrap(),
            code,
            at: jiff::Timestamp::UNIX_EPOCH,
            requested,
        }
    }

    #[test]
    fn a_loop_is_many_deaths_however_long_each_life() {
        let origin = Instant::now();
        for (pause, is_loop) in [(1, true), (11, true), (60, true), (119, true), (151, false), (3600, false)] {
            let mut deaths = Deaths::default();
            let at = |number: u64| origin + Duration::from_secs(pause * number);
            let begun = (0..20).filter(|&number| {
                deaths.add(&end(1, false), at(number));
                deaths.has_begun_to_loop(at(number))
            });
            assert_eq!(begun.count(), usize::from(is_loop), "every {pause} s");
            assert_eq!(deaths.is_loop(at(19)), is_loop, "every {pause} s");
            assert!(!deaths.is_loop(at(19) + CALM), "it has stayed up");
            assert_eq!(deaths.exits().len(), EXITS);
        }
    }

    #[test]
    fn what_was_asked_for_is_no_loop() {
        let now = Instant::now();
        let mut deaths = Deaths::default();
        for _ in 0..20 {
            deaths.add(&end(143, true), now);
        }
        assert!(!deaths.is_loop(now));
        for _ in 0..20 {
            deaths.add(&end(1, false), now);
        }
        assert!(deaths.has_begun_to_loop(now) && !deaths.has_begun_to_loop(now));
        deaths.add(&end(143, true), now);
        assert!(!deaths.is_loop(now) && !deaths.has_begun_to_loop(now));
        assert_eq!(deaths.exits().last().map(|exit| exit.code), Some(143));
    }
}
