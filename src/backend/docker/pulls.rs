//! One pull for each image, however many tenants ask for it at the same time, and only a few pulls at once.
//!
//! A pull runs on a task of its own, with a life of its own: the deadline of whoever asked first is nobody else's. Who
//! asks for the same thing meanwhile waits for the same task and gets the same result. One that nobody waits for any more
//! goes on once it has begun, so that whoever tries again finds more of the image there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};

use crate::backend::{Progress, ProgressEvent};
use crate::domain::RegistryAuth;

/// How many pulls a host does at once.
const AT_ONCE: usize = 4;
/// The longest that a pull may take once it has begun.
const LIFE: Duration = Duration::from_mins(30);

/// How many pulls are remembered; forgetting them costs pulls that are not needed yet.
const REMEMBERED: usize = 4096;

/// Why an image could not be pulled. The same for all who asked, whatever the names of their services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PullFailure {
    NotFound,
    Denied,
    RegistryUnavailable,
    NoSpace,
    EngineUnavailable,
    /// The deadline of whoever asked passed; the pull may go on.
    Deadline,
}

impl PullFailure {
    /// The reason as metrics name it.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::RegistryUnavailable => "registry_unavailable",
            Self::NoSpace => "no_space",
            Self::EngineUnavailable => "engine_unavailable",
            Self::Deadline => "deadline",
        }
    }
}

/// What is to be pulled, and as whom: two tenants share a pull only if both may have the image.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) reference: String,
    pub(super) platform: Option<String>,
    pub(super) credentials: Option<RegistryAuth>,
}

impl Wanted {
    fn is_same(&self, other: &Self) -> bool {
        let credentials = match (&self.credentials, &other.credentials) {
            (None, None) => true,
            (Some(one), Some(other)) => {
                one.registry == other.registry
                    && one.username == other.username
                    && one.password.expose_secret() == other.password.expose_secret()
            }
            _ => false,
        };
        credentials && self.reference == other.reference && self.platform == other.platform
    }
}

/// The registry's digest of what was pulled, if the engine told it.
type Outcome = Result<Option<String>, PullFailure>;

#[derive(Clone)]
struct State {
    step: String,
    /// The same in numbers, once it has begun.
    far: Option<ProgressEvent>,
    outcome: Option<Outcome>,
}

/// Where a pull says how far it is.
#[derive(Clone)]
pub(super) struct Steps(watch::Sender<State>);

impl Steps {
    pub(super) fn say(&self, step: String, far: ProgressEvent) {
        self.0.send_modify(|state| (state.step, state.far) = (step, Some(far)));
    }
}

struct Flight {
    wanted: Arc<Wanted>,
    steps: Steps,
}

/// Reference and platform.
type What = (String, Option<String>);

/// The pulls that go on, and when the last ones succeeded.
pub(super) struct Pulls {
    slots: Arc<Semaphore>,
    flights: Arc<Mutex<Vec<Flight>>>,
    pulled: Arc<Mutex<HashMap<What, Timestamp>>>,
}

impl Default for Pulls {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(AT_ONCE)), flights: Arc::default(), pulled: Arc::default() }
    }
}

impl Pulls {
    /// Joins the pull of this very thing, or begins it with `pull`, and waits for its end until `deadline`.
    pub(super) async fn join<Fut>(
        &self,
        wanted: Wanted,
        deadline: Instant,
        progress: &Progress,
        pull: impl FnOnce(Wanted, Steps) -> Fut,
    ) -> Outcome
    where
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let mut said = self.board(wanted, pull);
        loop {
            let State { step, far, outcome } = said.borrow_and_update().clone();
            match far {
                // The last word on a pull is told too, so that it does not seem to stand still at the end.
                Some(far) => progress.pull(step, far),
                None if outcome.is_none() => progress.report(step),
                None => {}
            }
            if let Some(outcome) = outcome {
                return outcome;
            }
            match timeout_at(deadline, said.changed()).await {
                Err(_) => return Err(PullFailure::Deadline),
                // Its task ended abnormally, which the log has.
                Ok(Err(_)) => return Err(PullFailure::RegistryUnavailable),
                Ok(Ok(())) => {}
            }
        }
    }

    /// When this was last pulled, as far as this process knows: some engines never tell.
    pub(super) fn last(&self, reference: &str, platform: Option<&str>) -> Option<Timestamp> {
        lock(&self.pulled).get(&(reference.to_owned(), platform.map(str::to_owned))).copied()
    }

    fn board<Fut>(&self, wanted: Wanted, pull: impl FnOnce(Wanted, Steps) -> Fut) -> watch::Receiver<State>
    where
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.iter().find(|flight| flight.wanted.is_same(&wanted)) {
            return flight.steps.0.subscribe();
        }
        let step = format!("waiting to pull {}", wanted.reference);
        let (sender, said) = watch::channel(State { step, far: None, outcome: None });
        let steps = Steps(sender);
        let pulling = pull(wanted.clone(), steps.clone());
        let wanted = Arc::new(wanted);
        flights.push(Flight { wanted: Arc::clone(&wanted), steps: steps.clone() });
        let landing = Landing { flights: Arc::clone(&self.flights), wanted };
        let (slots, pulled) = (Arc::clone(&self.slots), Arc::clone(&self.pulled));
        tokio::spawn(async move {
            let Some(_slot) = landing.slot(slots, &steps).await else { return };
            let outcome = timeout(LIFE, pulling).await.unwrap_or(Err(PullFailure::RegistryUnavailable));
            if outcome.is_ok() {
                let mut pulled = lock(&pulled);
                if pulled.len() >= REMEMBERED {
                    pulled.clear();
                }
                pulled.insert((landing.wanted.reference.clone(), landing.wanted.platform.clone()), Timestamp::now());
            }
            // Whoever comes from here on pulls anew.
            drop(landing);
            steps.0.send_modify(|state| state.outcome = Some(outcome));
        });
        said
    }
}

/// Takes the pull off the list when its task ends, in whatever way.
struct Landing {
    flights: Arc<Mutex<Vec<Flight>>>,
    wanted: Arc<Wanted>,
}

impl Landing {
    /// A slot, when one is free; none when nobody waits for the pull any more before that.
    async fn slot(&self, slots: Arc<Semaphore>, steps: &Steps) -> Option<OwnedSemaphorePermit> {
        let mut free = std::pin::pin!(slots.acquire_owned());
        loop {
            tokio::select! {
                slot = &mut free => return slot.ok(),
                () = steps.0.closed() => {
                    let mut flights = lock(&self.flights);
                    // Nobody can join while the list is locked.
                    if steps.0.receiver_count() == 0 {
                        flights.retain(|flight| !Arc::ptr_eq(&flight.wanted, &self.wanted));
                        return None;
                    }
                }
            }
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        lock(&self.flights).retain(|flight| !Arc::ptr_eq(&flight.wanted, &self.wanted));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    /// A registry that counts what it is asked and answers when it is told to.
    #[derive(Default)]
    struct Registry {
        asked: AtomicUsize,
        at_once: AtomicUsize,
        most: AtomicUsize,
        go: Notify,
    }

    impl Registry {
        async fn pull(self: Arc<Self>, steps: Steps, outcome: Outcome) -> Outcome {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            let image = "x:1".to_owned();
            let far = ProgressEvent::Pull { image, layers_done: 1, layers: 2, bytes_done: 50, bytes: 100 };
            steps.say("half of it is there".to_owned(), far);
            self.go.notified().await;
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            outcome
        }
    }

    fn wanted(reference: &str, password: Option<&str>) -> Wanted {
        let credentials = password.map(|password| RegistryAuth {
            registry: "r.example".to_owned(),
            username: "user".to_owned(),
            password: password.into(),
        });
        Wanted { reference: reference.to_owned(), platform: None, credentials }
    }

    async fn ask(
        pulls: &Pulls,
        registry: &Arc<Registry>,
        wanted: Wanted,
        limit: Duration,
        outcome: Outcome,
    ) -> Outcome {
        let registry = Arc::clone(registry);
        let pull = move |_: Wanted, steps: Steps| registry.pull(steps, outcome);
        pulls.join(wanted, Instant::now() + limit, &Progress::new(), pull).await
    }

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test(start_paused = true)]
    async fn all_who_ask_for_the_same_share_one_pull_and_its_result() {
        let (pulls, registry) = (Pulls::default(), Arc::new(Registry::default()));
        for outcome in [Ok(Some("sha256:1".to_owned())), Err(PullFailure::Denied)] {
            registry.asked.store(0, Ordering::SeqCst);
            let asking =
                join_all((0..20).map(|_| ask(&pulls, &registry, wanted("x:1", Some("s")), LONG, outcome.clone())));
            let answering = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                registry.go.notify_waiters();
            };
            let (outcomes, ()) = tokio::join!(asking, answering);
            assert_eq!(outcomes, vec![outcome; 20]);
            assert_eq!(registry.asked.load(Ordering::SeqCst), 1);
            assert!(pulls.last("x:1", None).is_some() && pulls.last("x:1", Some("linux/arm64")).is_none());
            assert!(lock(&pulls.flights).is_empty(), "a pull that is over is forgotten");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn other_credentials_and_other_platforms_are_other_pulls() {
        let (pulls, registry) = (Pulls::default(), Arc::new(Registry::default()));
        let other_platform = Wanted { platform: Some("linux/arm64".to_owned()), ..wanted("x:1", None) };
        let all = [wanted("x:1", None), wanted("x:1", Some("a")), wanted("x:1", Some("b")), other_platform];
        let asking = join_all(all.into_iter().map(|wanted| ask(&pulls, &registry, wanted, LONG, Ok(None))));
        let answering = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            registry.go.notify_waiters();
        };
        tokio::join!(asking, answering);
        assert_eq!(registry.asked.load(Ordering::SeqCst), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asked_first_and_gives_up_spoils_it_for_nobody() {
        let (pulls, registry) = (Pulls::default(), Arc::new(Registry::default()));
        let impatient = ask(&pulls, &registry, wanted("x:1", None), Duration::from_secs(1), Ok(None));
        let patient = ask(&pulls, &registry, wanted("x:1", None), LONG, Ok(None));
        let answering = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            registry.go.notify_waiters();
        };
        let (impatient, patient, ()) = tokio::join!(impatient, patient, answering);
        assert_eq!((impatient, patient), (Err(PullFailure::Deadline), Ok(None)));
        // And one that was dropped, as a request is whose operation panicked.
        let dropped = ask(&pulls, &registry, wanted("x:1", None), LONG, Ok(None));
        drop(timeout(Duration::from_secs(1), dropped).await);
        let patient = ask(&pulls, &registry, wanted("x:1", None), LONG, Ok(None));
        let answering = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            registry.go.notify_waiters();
        };
        assert_eq!(tokio::join!(patient, answering).0, Ok(None));
        assert_eq!(registry.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_few_at_once_and_none_that_nobody_waits_for() {
        let (pulls, registry) = (Pulls::default(), Arc::new(Registry::default()));
        let images: Vec<String> = (0..10).map(|n| format!("x:{n}")).collect();
        let patient = images.iter().map(|image| ask(&pulls, &registry, wanted(image, None), LONG, Ok(None)));
        let impatient = ask(&pulls, &registry, wanted("late:1", None), Duration::from_secs(1), Ok(None));
        let answering = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(2)).await;
                registry.go.notify_waiters();
            }
        };
        let (outcomes, impatient, ()) = tokio::join!(join_all(patient), impatient, answering);
        assert_eq!(outcomes, vec![Ok(None); 10]);
        assert_eq!(impatient, Err(PullFailure::Deadline));
        assert_eq!(registry.most.load(Ordering::SeqCst), AT_ONCE);
        assert_eq!(registry.asked.load(Ordering::SeqCst), 10, "the one that nobody waited for was never begun");
        assert!(lock(&pulls.flights).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pull_that_never_ends_is_ended() {
        let (pulls, registry) = (Pulls::default(), Arc::new(Registry::default()));
        let asking = ask(&pulls, &registry, wanted("x:1", None), LIFE * 2, Ok(None));
        assert_eq!(asking.await, Err(PullFailure::RegistryUnavailable));
    }
}
