//! Why Azure Resource Manager did not do what it was asked.
//!
//! A status says little here: 409 alone means five different things. So an error's kind is decided by its code wherever the
//! code is known, whether it came as an answer or as the end of a long-running operation, and by the status otherwise.

use std::fmt;

use serde_json::Value;

/// The longest text that is kept of a message, in characters.
const LONGEST_MESSAGE: usize = 500;
/// The longest code or name that is kept, in characters.
const LONGEST_WORD: usize = 100;
/// How many details and events are kept.
const MOST: usize = 8;

/// What was answered, cleaned: it may be shown to the client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::backend::aci) struct Refusal {
    /// The HTTP status; that of the poll when a long-running operation failed.
    pub(in crate::backend::aci) status: u16,
    /// The code, such as `ContainerGroupQuotaReached`; empty when there was none.
    pub(in crate::backend::aci) code: String,
    /// The message; never empty.
    pub(in crate::backend::aci) message: String,
    /// What in the request it is about, if it says so.
    pub(in crate::backend::aci) target: Option<String>,
    /// Code and message of the errors behind it.
    pub(in crate::backend::aci) details: Vec<(String, String)>,
    /// Name and message of the events that a failed operation tells.
    pub(in crate::backend::aci) events: Vec<(String, String)>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.code, self.message) }
    }
}

impl Refusal {
    /// Reads the body of an answer that is no success. It may be anything: a front door answers in HTML, or with nothing.
    pub(super) fn read(status: u16, body: &[u8]) -> Self {
        let value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let error = value.get("error").filter(|error| error.is_object()).unwrap_or(&value);
        let mut refusal = Self { status, ..Self::default() };
        refusal.take(error);
        if refusal.message.is_empty() {
            refusal.message = format!("status {status} without a message");
        }
        refusal
    }

    /// Reads what a long-running operation ended with: its status document, or the resource itself.
    pub(super) fn of_operation(status: u16, ended: &str, document: &Value) -> Self {
        let mut refusal = Self { status, ..Self::default() };
        if let Some(error) = document.get("error") {
            refusal.take(error);
        }
        let properties = document.get("properties");
        let own = properties.and_then(|properties| properties.get("events"));
        let events = own.or_else(|| properties.and_then(|properties| properties.pointer("/instanceView/events")));
        refusal.events = pairs(events, "name");
        if refusal.code.is_empty() {
            refusal.code = clean(ended, LONGEST_WORD);
        }
        if refusal.message.is_empty() {
            let told = refusal.events.iter().rev().map(|(_, message)| message).find(|message| !message.is_empty());
            refusal.message = told.cloned().unwrap_or_else(|| format!("the operation ended as {}", refusal.code));
        }
        refusal
    }

    fn take(&mut self, error: &Value) {
        self.code = text(error, "code", LONGEST_WORD);
        self.message = text(error, "message", LONGEST_MESSAGE);
        self.target = Some(text(error, "target", LONGEST_WORD)).filter(|target| !target.is_empty());
        self.details = pairs(error.get("details"), "code");
    }

    /// Whether an operation's end was read.
    fn is_of_operation(&self) -> bool {
        self.status < 300
    }

    /// Whether an operation has said only that it failed. Why, the events of the group may tell.
    pub(in crate::backend::aci) fn is_bare(&self) -> bool {
        let has_word = !self.code.is_empty() && !self.code.eq_ignore_ascii_case("failed");
        self.is_of_operation() && self.events.is_empty() && self.details.is_empty() && !has_word
    }

    /// The codes to decide by, the most telling first.
    pub(in crate::backend::aci) fn codes(&self) -> impl Iterator<Item = &str> {
        let behind = self.details.iter().chain(&self.events).map(|(code, _)| code.as_str());
        std::iter::once(self.code.as_str()).chain(behind).map(|code| code.trim_end_matches('.'))
    }
}

/// Code (or name) and message of each member of a list.
fn pairs(list: Option<&Value>, name: &str) -> Vec<(String, String)> {
    let list = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    // The last are the latest.
    let from = list.len().saturating_sub(MOST);
    list[from..].iter().map(|one| (text(one, name, LONGEST_WORD), text(one, "message", LONGEST_MESSAGE))).collect()
}

fn text(object: &Value, name: &str, longest: usize) -> String {
    let text = object.get(name).and_then(Value::as_str).unwrap_or_default();
    clean(text, longest)
}

/// On one line, and not longer than this.
pub(super) fn clean(text: &str, longest: usize) -> String {
    let line = text.chars().map(|character| if character.is_control() { ' ' } else { character });
    let line: String = line.take(longest).collect();
    line.trim().to_owned()
}

/// A failure of a call, or of the long-running operation that it began.
#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::backend::aci) enum ArmError {
    /// What a call needs is not there; a missing resource group among others. The message names it.
    #[error("{0}")]
    NotFound(Box<Refusal>),
    /// The group is still on its way to another state. It was tried again for as long as there was time.
    #[error("{0}")]
    Transitioning(Box<Refusal>),
    /// A share of this name is still being deleted; likewise.
    #[error("{0}")]
    ShareBeingDeleted(Box<Refusal>),
    /// The registry did not answer Azure as it should; likewise.
    #[error("{0}")]
    RegistryError(Box<Refusal>),
    /// The image cannot be read, or does not exist.
    #[error("{0}")]
    InaccessibleImage(Box<Refusal>),
    /// Somebody else has the DNS label.
    #[error("{0}")]
    DnsLabelTaken(Box<Refusal>),
    /// A quota of the subscription is used up in this region.
    #[error("{0}")]
    QuotaReached(Box<Refusal>),
    /// The region has no room for the group at the moment.
    #[error("{0}")]
    NoCapacity(Box<Refusal>),
    /// What was changed cannot be changed in place.
    #[error("{0}")]
    InvalidUpdate(Box<Refusal>),
    /// Another 409.
    #[error("{0}")]
    Conflict(Box<Refusal>),
    /// Too many calls, and the time that was named lies beyond the deadline.
    #[error("{0}")]
    Throttled(Box<Refusal>),
    /// No token could be had, or a fresh one was not taken.
    #[error("not authorised: {message}")]
    Unauthorised { message: String },
    /// The identity has no right to do this.
    #[error("{0}")]
    Forbidden(Box<Refusal>),
    /// No usable answer came.
    #[error("Azure Resource Manager cannot be used: {message}")]
    Unavailable { message: String },
    /// An answer came that is not of the shape it should be.
    #[error("an answer could not be read: {message}")]
    Unreadable { message: String },
    /// The time was over.
    #[error("the deadline passed while {doing}")]
    Deadline { doing: String },
    /// Another error of the request.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// A long-running operation ended otherwise than well.
    #[error("{0}")]
    OperationFailed(Box<Refusal>),
}

impl ArmError {
    /// The kind of error that a refusal is.
    pub(super) fn of(refusal: Refusal) -> Self {
        let known = refusal.codes().find_map(|code| of_code(code, &refusal));
        let kind = known.unwrap_or_else(|| of_status(&refusal));
        kind(Box::new(refusal))
    }

    /// The failure that an event tells before the operation ends.
    pub(in crate::backend::aci) fn of_event(name: &str, message: &str) -> Self {
        let (code, message) = (clean(name, LONGEST_WORD), clean(message, LONGEST_MESSAGE));
        Self::of(Refusal { status: 200, code, message, ..Refusal::default() })
    }

    /// What was answered, if something was.
    pub(in crate::backend::aci) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::NotFound(refusal)
            | Self::Transitioning(refusal)
            | Self::ShareBeingDeleted(refusal)
            | Self::RegistryError(refusal)
            | Self::InaccessibleImage(refusal)
            | Self::DnsLabelTaken(refusal)
            | Self::QuotaReached(refusal)
            | Self::NoCapacity(refusal)
            | Self::InvalidUpdate(refusal)
            | Self::Conflict(refusal)
            | Self::Throttled(refusal)
            | Self::Forbidden(refusal)
            | Self::Refused(refusal)
            | Self::OperationFailed(refusal) => Some(refusal),
            Self::Unauthorised { .. } | Self::Unavailable { .. } | Self::Unreadable { .. } | Self::Deadline { .. } => {
                None
            }
        }
    }

    /// The code that was answered; empty when there was none.
    pub(in crate::backend::aci) fn code(&self) -> &str {
        self.refusal().map_or("", |refusal| &refusal.code)
    }

    /// The reason as metrics name it.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Transitioning(_) => "transitioning",
            Self::ShareBeingDeleted(_) => "share_being_deleted",
            Self::RegistryError(_) => "registry_error",
            Self::InaccessibleImage(_) => "inaccessible_image",
            Self::DnsLabelTaken(_) => "dns_label_taken",
            Self::QuotaReached(_) => "quota_reached",
            Self::NoCapacity(_) => "no_capacity",
            Self::InvalidUpdate(_) => "invalid_update",
            Self::Conflict(_) => "conflict",
            Self::Throttled(_) => "throttled",
            Self::Unauthorised { .. } => "unauthorised",
            Self::Forbidden(_) => "forbidden",
            Self::Unavailable { .. } => "unreachable",
            Self::Unreadable { .. } => "unreadable",
            Self::Deadline { .. } => "timeout",
            Self::Refused(_) => "refused",
            Self::OperationFailed(_) => "operation_failed",
        }
    }
}

type Kind = fn(Box<Refusal>) -> ArmError;

/// Codes that mean one thing whatever the status is.
fn of_code(code: &str, refusal: &Refusal) -> Option<Kind> {
    Some(match code {
        "ContainerGroupTransitioning" => ArmError::Transitioning,
        "ShareBeingDeleted" => ArmError::ShareBeingDeleted,
        "RegistryErrorResponse" => ArmError::RegistryError,
        "InaccessibleImage" => ArmError::InaccessibleImage,
        "DnsNameLabelAlreadyTaken" => ArmError::DnsLabelTaken,
        "ContainerGroupQuotaReached" => ArmError::QuotaReached,
        "InvalidContainerGroupUpdate" => ArmError::InvalidUpdate,
        "InsufficientCapacity" => ArmError::NoCapacity,
        // With 503 it is what it says.
        "ServiceUnavailable" if refusal.status == 409 || refusal.is_of_operation() => ArmError::NoCapacity,
        _ => return None,
    })
}

fn of_status(refusal: &Refusal) -> Kind {
    match refusal.status {
        _ if refusal.is_of_operation() => ArmError::OperationFailed,
        401 => |refusal| ArmError::Unauthorised { message: refusal.to_string() },
        403 => ArmError::Forbidden,
        404 => ArmError::NotFound,
        409 => ArmError::Conflict,
        429 => ArmError::Throttled,
        408 | 500 | 502 | 503 | 504 => |refusal| ArmError::Unavailable { message: refusal.to_string() },
        _ => ArmError::Refused,
    }
}
