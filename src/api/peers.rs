//! Who is on the other side, and how often: connections at a time and failed logins a minute, each per peer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::wire::Exchange;

/// An address for counting. Whoever has an IPv6 address has its whole /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Peer(IpAddr);

impl Peer {
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the connections within their caps. When there is no place left, the connection that has been waiting longest
/// for its next request goes: its client opens another one when it needs one. So slow and idle clients, however many,
/// keep nobody out; only connections that are all being served do.
#[derive(Debug)]
pub(super) struct Door {
    most: usize,
    most_per_peer: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    guests: HashMap<u64, Guest>,
    per_peer: HashMap<Peer, usize>,
}

#[derive(Debug)]
struct Guest {
    peer: Peer,
    exchange: Arc<Exchange>,
    leave: CancellationToken,
}

/// A connection's place, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    door: Arc<Door>,
    number: u64,
    /// Set when the place is needed for somebody else.
    pub(super) leave: CancellationToken,
}

impl Door {
    pub(super) fn new(most: usize, most_per_peer: usize) -> Arc<Self> {
        Arc::new(Self { most, most_per_peer, inside: Mutex::default() })
    }

    /// None when all places are taken by connections that are being served.
    pub(super) fn admit(self: &Arc<Self>, peer: Peer, exchange: &Arc<Exchange>) -> Option<Place> {
        let mut inside = lock(&self.inside);
        if inside.per_peer.get(&peer).copied().unwrap_or(0) >= self.most_per_peer {
            inside.make_room(|guest| guest.peer == peer)?;
        }
        if inside.guests.len() >= self.most {
            // At the cost of who has most, so that one peer cannot drive out the others.
            let most = inside.per_peer.iter().max_by_key(|(_, count)| **count).map(|(peer, _)| *peer);
            inside.make_room(|guest| Some(guest.peer) == most).or_else(|| inside.make_room(|_| true))?;
        }
        let number = inside.next;
        inside.next += 1;
        let leave = CancellationToken::new();
        inside.guests.insert(number, Guest { peer, exchange: Arc::clone(exchange), leave: leave.clone() });
        *inside.per_peer.entry(peer).or_default() += 1;
        Some(Place { door: Arc::clone(self), number, leave })
    }
}

impl Inside {
    fn make_room(&mut self, which: impl Fn(&Guest) -> bool) -> Option<()> {
        let waiting = self.guests.iter().filter(|(_, guest)| which(guest) && !guest.exchange.is_busy());
        let (&number, _) = waiting.min_by_key(|(number, guest)| (guest.exchange.idle_since(), **number))?;
        if let Some(guest) = self.remove(number) {
            guest.leave.cancel();
        }
        Some(())
    }

    fn remove(&mut self, number: u64) -> Option<Guest> {
        let guest = self.guests.remove(&number)?;
        if let Some(count) = self.per_peer.get_mut(&guest.peer) {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(&guest.peer);
            }
        }
        Some(guest)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.door.inside).remove(self.number);
    }
}

/// Failed logins of one peer that are answered with 401 within [`WINDOW`].
const MOST_FAILURES: u32 = 200;
const WINDOW: Duration = Duration::from_mins(1);
/// The most peers that are counted one by one.
const MOST_PEERS: usize = 4096;

/// Counts failed logins. It is asked only after a login has failed, so a good token never waits for it.
#[derive(Debug, Default)]
pub(super) struct FailedLogins(Mutex<Failures>);

#[derive(Debug, Default)]
struct Failures {
    peers: HashMap<Peer, Count>,
    /// All peers for whom there was no room. A count is given up only when it is out of date: were it given up to make
    /// room, a crowd of addresses could wash away the count of one.
    others: Option<Count>,
    swept: Option<Instant>,
}

/// A sliding window: the window before counts for the part of it that is still within a minute.
#[derive(Debug, Clone, Copy)]
struct Count {
    since: Instant,
    now: u32,
    before: u32,
}

impl FailedLogins {
    /// Counts a failure; an error says how long all others of this peer will only be told to wait.
    pub(super) fn count(&self, peer: Peer) -> Result<(), Duration> {
        lock(&self.0).count(peer, Instant::now())
    }
}

impl Failures {
    fn count(&mut self, peer: Peer, now: Instant) -> Result<(), Duration> {
        if self.peers.len() >= MOST_PEERS && !self.peers.contains_key(&peer) {
            // Not for every failure: that would be the work that a crowd wants to make.
            if self.swept.is_none_or(|swept| now - swept >= Duration::from_secs(1)) {
                self.swept = Some(now);
                self.peers.retain(|_, count| now - count.since < 2 * WINDOW);
            }
            if self.peers.len() >= MOST_PEERS {
                return self.others.get_or_insert(Count::new(now)).add(now);
            }
        }
        self.peers.entry(peer).or_insert(Count::new(now)).add(now)
    }
}

impl Count {
    fn new(now: Instant) -> Self {
        Self { since: now, now: 0, before: 0 }
    }

    fn add(&mut self, now: Instant) -> Result<(), Duration> {
        let mut elapsed = now - self.since;
        if elapsed >= 2 * WINDOW {
            *self = Self::new(now);
            elapsed = Duration::ZERO;
        } else if elapsed >= WINDOW {
            *self = Self { since: self.since + WINDOW, now: 0, before: self.now };
            elapsed -= WINDOW;
        }
        let left = WINDOW.saturating_sub(elapsed);
        let before = left.mul_f64(f64::from(self.before)).div_duration_f64(WINDOW);
        if f64::from(self.now) + before < f64::from(MOST_FAILURES) {
            self.now += 1;
            return Ok(());
        }
        // Until enough of the window before has slid away, or this one has become it and begins to.
        let step = |count: u32| WINDOW / count.max(1);
        let room = MOST_FAILURES.saturating_sub(self.now);
        let wait = if room > 0 { left.saturating_sub(step(self.before) * room) } else { left + step(self.now) };
        Err(wait.max(Duration::from_secs(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::of(text.parse().unwrap())
    }

    #[test]
    fn who_counts_as_one() {
        assert_eq!(peer("10.0.0.1"), peer("::ffff:10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff::2"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
    }

    #[test]
    fn the_longest_idle_connection_makes_room() {
        let door = Door::new(3, 2);
        let (one, two) = (peer("10.0.0.1"), peer("10.0.0.2"));
        let open = |peer| {
            let exchange = Exchange::new();
            (door.admit(peer, &exchange), exchange)
        };
        let (first, first_exchange) = open(one);
        let (second, second_exchange) = open(one);
        let (first, second) = (first.unwrap(), second.unwrap());
        first_exchange.begin();
        // The peer's own cap, and its first one is busy.
        let (third, third_exchange) = open(one);
        let third = third.unwrap();
        assert!(second.leave.is_cancelled() && !first.leave.is_cancelled());
        drop((second, second_exchange));
        third_exchange.begin();
        assert!(open(one).0.is_none(), "both are busy");
        let (fourth, fourth_exchange) = open(two);
        let fourth = fourth.unwrap();
        // The cap of all: the only one that is idle has to go.
        let (fifth, fifth_exchange) = open(two);
        assert!(fourth.leave.is_cancelled() && fifth.is_some());
        fifth_exchange.begin();
        assert!(open(two).0.is_none() && open(peer("10.0.0.3")).0.is_none());
        first_exchange.end();
        assert!(open(peer("10.0.0.3")).0.is_some() && first.leave.is_cancelled());
        drop((first, third, fourth, fourth_exchange, fifth));
        assert_eq!(lock(&door.inside).guests.len(), 0);
        assert_eq!(lock(&door.inside).per_peer.len(), 0);
    }

    #[test]
    fn whoever_has_most_makes_room_for_the_others() {
        let door = Door::new(10, 10);
        let few = Exchange::new();
        let few = door.admit(peer("10.0.0.1"), &few).unwrap();
        let many: Vec<_> = (0..30).map(|_| door.admit(peer("10.0.0.2"), &Exchange::new()).unwrap()).collect();
        assert!(!few.leave.is_cancelled(), "it has been idle for longest, but its peer has one only");
        assert_eq!(many.iter().filter(|place| !place.leave.is_cancelled()).count(), 9);
    }

    #[test]
    fn two_hundred_failures_a_minute() {
        let (mut failures, begun) = (Failures::default(), Instant::now());
        let (one, two) = (peer("10.0.0.1"), peer("10.0.0.2"));
        let at = |millis| begun + Duration::from_millis(millis);
        for n in 0..200 {
            assert_eq!(failures.count(one, at(n)), Ok(()), "{n}");
        }
        let wait = failures.count(one, at(200)).unwrap_err();
        assert!(wait > Duration::from_secs(59) && wait < Duration::from_secs(61), "{wait:?}");
        assert_eq!(failures.count(two, at(200)), Ok(()), "others are not concerned");
        assert!(failures.count(one, at(59_999)).is_err());
        // Not all at once when the window is over, but as the failures of the last minute slide out of it.
        let after = |begin: u64, end: u64, failures: &mut Failures| {
            (begin..end).step_by(10).filter(|millis| failures.count(one, at(*millis)).is_ok()).count()
        };
        let half = after(60_000, 90_000, &mut failures);
        assert!((90..=101).contains(&half), "{half}");
        let waits = failures.count(one, at(90_000)).unwrap_err();
        assert!(failures.count(one, at(90_000) + waits).is_ok(), "Retry-After keeps its word");
        let rest = after(90_000 + 1000, 120_000, &mut failures);
        assert!(half + rest <= 201, "{half} + {rest}");
        assert_eq!(failures.count(one, at(600_000)), Ok(()));
    }

    #[test]
    fn a_crowd_does_not_wash_a_count_away() {
        let (mut failures, begun) = (Failures::default(), Instant::now());
        let one = peer("10.0.0.1");
        for _ in 0..200 {
            failures.count(one, begun).unwrap();
        }
        let crowd = |n: u32| Peer::of(IpAddr::from((n | 0xac10_0000).to_be_bytes()));
        let told = (0..10_000).filter(|n| failures.count(crowd(*n), begun).is_ok()).count();
        assert_eq!(told, MOST_PEERS - 1 + 200, "those without a count of their own share one");
        assert_eq!(failures.peers.len(), MOST_PEERS);
        assert!(failures.count(one, begun).is_err());
        // Old counts go when there is need.
        let later = begun + 3 * WINDOW;
        assert!((0..200).all(|_| failures.count(crowd(20_000), later).is_ok()));
        assert_eq!(failures.peers.len(), 1);
    }
}
