//! What goes wrong on purpose: calls by rule, operations by the name of the group.

use std::time::Duration;

/// How a call goes wrong.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Refused with this status and code; nothing is done.
    Status { status: u16, code: &'static str, message: &'static str, retry_after: Option<u64> },
    /// A page instead of JSON, with this status; nothing is done.
    Html(u16),
    /// This status without a body; nothing is done.
    Empty(u16),
    /// The connection is closed; nothing is done.
    ResetBefore,
    /// It is done, and the connection is closed.
    ResetAfter,
    /// It is done, and half of the answer's body arrives.
    Truncated,
    /// It is done after this time.
    Slow(Duration),
    /// Nothing is done and nothing is said.
    Hang,
    /// It is done and nothing is said.
    HangAfter,
    /// The token is said to have expired, whatever it is; nothing is done.
    ExpiredToken,
    /// It is done, and the body of the answer is replaced by one that is no JSON.
    Garbage,
}

impl Fault {
    /// A refusal with a code.
    pub(crate) fn refused(status: u16, code: &'static str) -> Self {
        Self::Status { status, code, message: "This was made up.", retry_after: None }
    }

    /// 429 as Azure Resource Manager says it.
    pub(crate) fn throttled(seconds: u64) -> Self {
        Self::Status {
            status: 429,
            code: "SubscriptionRequestsThrottled",
            message: "Number of requests for subscription exceeded the limit. Please try again later.",
            retry_after: Some(seconds),
        }
    }
}

/// Which calls go wrong: by method, by path, and by how many of them came before.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    method: String,
    path: String,
    fault: Fault,
    skip: u32,
    times: u32,
    pub(super) hits: u32,
}

impl Rule {
    /// The next call with this method and a path like this (`*` stands for anything; upper and lower case are the same).
    pub(crate) fn new(method: &str, path: &str, fault: Fault) -> Self {
        Self { method: method.to_owned(), path: path.to_lowercase(), fault, skip: 0, times: 1, hits: 0 }
    }

    /// Lets so many of them pass first.
    pub(crate) fn after(self, skip: u32) -> Self {
        Self { skip, ..self }
    }

    /// So many of them go wrong.
    pub(crate) fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// All of them go wrong.
    pub(crate) fn always(self) -> Self {
        self.times(u32::MAX)
    }

    pub(super) fn strike(&mut self, method: &str, path: &str) -> Option<Fault> {
        if self.method != method || self.times == 0 || !like(&self.path, &path.to_lowercase()) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.times = self.times.saturating_sub(1);
        self.hits += 1;
        Some(self.fault.clone())
    }
}

/// Whether a text is like a pattern with `*`.
pub(super) fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some((last, middle)) = parts.collect::<Vec<_>>().split_last().map(|(last, middle)| (*last, middle.to_vec()))
    else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Which long-running operation an outcome is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Create,
    Delete,
    Start,
}

/// How a long-running operation ends.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// `Failed` with an `error`.
    Error { code: &'static str, message: &'static str },
    /// `Failed` without an `error`: only events say why.
    Events { name: &'static str, message: &'static str },
    /// `Failed` and no more: only the group's own events say why.
    Silent { name: &'static str, message: &'static str },
    /// Never.
    Stuck,
}

impl Outcome {
    /// No capacity, as it is told in the middle of a creation.
    pub(crate) fn no_capacity() -> Self {
        Self::Events {
            name: "InsufficientCapacity.",
            message: "The requested resource is not available in the location at this moment. Please retry with a different resource request or in another location.",
        }
    }
}
