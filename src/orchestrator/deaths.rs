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
/// How long a stop of what loops too long is given until it is tried again.
const RETRY: Duration = Duration::from_secs(60);
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
    /// What was last said about it: since when it is in a loop.
    looping: Option<Instant>,
    /// When the agent last set out to stop it for that.
    tried: Option<Instant>,
    /// Nothing more is tried in this loop.
    given_up: bool,
    /// How it stands with its stop for that.
    stop: Stop,
    /// How the last runs of the loop ended, before the stop itself ended one.
    exits_of_loop: Vec<Exit>,
}

/// What the agent has done about a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stop {
    #[default]
    None,
    Begun,
    /// And it has not been started since.
    Done,
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

    /// It runs, or is about to.
    pub(super) fn runs(&mut self) {
        if self.stop == Stop::Done {
            self.stop = Stop::None;
        }
    }

    pub(super) fn exits(&self) -> Vec<Exit> {
        if self.stop == Stop::None { self.exits.iter().copied().collect() } else { self.exits_of_loop.clone() }
    }

    pub(super) fn is_loop(&self, now: Instant) -> bool {
        let recent = |death: &&Instant| now.saturating_duration_since(**death) < WINDOW;
        let calm = self.own.back().is_none_or(|last| now.saturating_duration_since(*last) >= CALM);
        !calm && self.own.iter().filter(recent).count() >= LOOP
    }

    /// Whether a loop has begun since this was last asked.
    pub(super) fn has_begun_to_loop(&mut self, now: Instant) -> bool {
        let is_loop = self.is_loop(now);
        let since = if is_loop { self.looping.or(Some(now)) } else { None };
        self.given_up &= is_loop;
        std::mem::replace(&mut self.looping, since).is_none() && is_loop
    }

    /// Whether it has been in a loop for so long that it is to be stopped now. Whoever asks sets out to do that.
    pub(super) fn loops_too_long(&mut self, now: Instant, limit: Duration) -> bool {
        let since = |at: Instant| now.saturating_duration_since(at);
        let is_due = self.is_loop(now)
            && !self.given_up
            && self.looping.is_some_and(|begun| since(begun) >= limit)
            && self.tried.is_none_or(|tried| since(tried) >= RETRY);
        if is_due {
            self.tried = Some(now);
        }
        is_due
    }

    /// It is about to be stopped for that, if it is in a loop still.
    pub(super) fn stop_begins(&mut self, now: Instant) -> bool {
        let is_loop = self.is_loop(now);
        if is_loop {
            self.exits_of_loop = self.exits();
            self.stop = Stop::Begun;
        }
        is_loop
    }

    /// It has been stopped, or could not be.
    pub(super) fn stop_ends(&mut self, done: bool) {
        if self.stop == Stop::Begun {
            self.stop = if done { Stop::Done } else { Stop::None };
        }
        if done {
            self.tried = None;
        }
    }

    pub(super) fn give_up(&mut self) {
        self.given_up = true;
    }

    /// Whether it is as it is because it was stopped for that.
    pub(super) fn was_stopped(&self) -> bool {
        self.stop != Stop::None
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
    fn a_loop_may_last_too_long() {
        let origin = Instant::now();
        let (limit, mut deaths) = (Duration::from_secs(300), Deaths::default());
        let due = (0..60).filter(|&number| {
            let now = origin + Duration::from_secs(10 * number);
            deaths.add(&end(1, false), now);
            deaths.has_begun_to_loop(now);
            deaths.loops_too_long(now, limit)
        });
        // The loop begins with the fifth death, at 40 s.
        assert_eq!(
            due.collect::<Vec<_>>(),
            [34, 40, 46, 52, 58],
            "once, and again each minute while that has no effect"
        );
        let now = origin + Duration::from_secs(590);
        assert!(deaths.stop_begins(now) && deaths.was_stopped());
        deaths.runs();
        deaths.add(&end(137, true), now);
        deaths.stop_ends(true);
        assert!(
            deaths.was_stopped() && deaths.exits().iter().all(|exit| exit.code == 1),
            "its own end is no exit of it"
        );
        assert!(!deaths.stop_begins(now), "it is in no loop any more");
        deaths.runs();
        assert!(!deaths.was_stopped());
        assert_eq!(deaths.exits().last().map(|exit| exit.code), Some(137));
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
