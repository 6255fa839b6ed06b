//! Named places where the process can be killed: that is how tests show that nothing is lost at any of them.
//!
//! The world outside changes by disk calls and engine calls only, so that is where the points are: between two of them it
//! makes no difference at which line the process dies. Without the feature `crash-points` all of this is nothing.
//!
//! With it, `Q8_CRASH_DIR` names a directory. While a file `trace` is there, the name of each point that is reached is
//! added to it. While a file `at` is there and says `name` or `name#3`, the process is killed when it reaches that point,
//! or reaches it for the third time since the file says so; `*#3` is the third point of whatever name. Names are
//! `engine.{call}/{before|after}` and `fs.{step}/{begin|what was done|end}`.

#[cfg(all(feature = "crash-points", not(debug_assertions)))]
compile_error!("crash points are for tests: a release must not have them");

#[cfg(feature = "crash-points")]
pub(crate) use armed::{around, point, step};
#[cfg(not(feature = "crash-points"))]
pub(crate) use harmless::{around, point, step};

#[cfg(not(feature = "crash-points"))]
mod harmless {
    /// A step of the disk's work; see the other build of it.
    pub(crate) struct Step;

    #[inline]
    pub(crate) const fn point(_name: &'static str) {}

    #[inline]
    pub(crate) const fn step(_name: &'static str) -> Step {
        Step
    }

    #[inline]
    pub(crate) fn around<F: Future>(_name: &'static str, call: F) -> F {
        call
    }
}

#[cfg(feature = "crash-points")]
mod armed {
    use std::cell::Cell;
    use std::collections::HashMap;
    use std::io::Write as _;
    use std::path::PathBuf;
    use std::sync::{Mutex, OnceLock, PoisonError};

    use rustix::process::{Signal, getpid, kill_process};

    thread_local! {
        /// The step that this thread is in. A disk call stays on one thread.
        static STEP: Cell<&'static str> = const { Cell::new("host") };
    }

    /// A step of the disk's work: what is done until it is dropped carries its name. One within another gives the name
    /// back when it ends.
    pub(crate) struct Step {
        name: &'static str,
        before: &'static str,
    }

    pub(crate) fn step(name: &'static str) -> Step {
        let step = Step { name, before: STEP.replace(name) };
        point("begin");
        step
    }

    impl Drop for Step {
        fn drop(&mut self) {
            STEP.set(self.name);
            point("end");
            STEP.set(self.before);
        }
    }

    /// A point within the disk's work.
    pub(crate) fn point(what: &'static str) {
        if let Some(directory) = directory() {
            reached(directory, &format!("fs.{}/{what}", STEP.get()));
        }
    }

    /// A call of the engine, with a point before it and one after it.
    pub(crate) fn around<F: Future>(name: &'static str, call: F) -> impl Future<Output = F::Output> {
        let at = move |side: &str| {
            if let Some(directory) = directory() {
                reached(directory, &format!("engine.{name}/{side}"));
            }
        };
        // Boxed, so that callers' futures stay as small as without this.
        let call = Box::pin(call);
        async move {
            at("before");
            let done = call.await;
            at("after");
            done
        }
    }

    fn directory() -> Option<&'static PathBuf> {
        static DIRECTORY: OnceLock<Option<PathBuf>> = OnceLock::new();
        DIRECTORY.get_or_init(|| std::env::var_os("Q8_CRASH_DIR").map(PathBuf::from)).as_ref()
    }

    /// How often each point was reached since the file said what it says.
    #[derive(Default)]
    struct Counts {
        said: String,
        reached: HashMap<String, u32>,
    }

    fn reached(directory: &std::path::Path, name: &str) {
        static COUNTS: Mutex<Option<Counts>> = Mutex::new(None);
        let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(mut trace) = std::fs::File::options().append(true).open(directory.join("trace")) {
            writeln!(trace, "{name}").expect("a trace that was asked for can be written");
        }
        let Ok(said) = std::fs::read_to_string(directory.join("at")) else {
            *counts = None;
            return;
        };
        let counts = counts.get_or_insert_default();
        if counts.said != said {
            *counts = Counts { said: said.clone(), reached: HashMap::new() };
        }
        let (wanted, time) = said.trim().split_once('#').unwrap_or((said.trim(), "1"));
        let count = counts.reached.entry(if wanted == "*" { "*" } else { name }.to_owned()).or_default();
        *count += 1;
        if (wanted == name || wanted == "*") && time.parse() == Ok(*count) {
            // No unwinding, no flush, no destructor: as from outside. The lock is held, so no other point is passed.
            let _ = kill_process(getpid(), Signal::KILL);
            loop {
                std::thread::park();
            }
        }
    }
}
