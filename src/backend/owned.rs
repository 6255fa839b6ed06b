//! What this agent has made on a backend, whether or not anybody still knows the tenant.

use serde::Serialize;

use crate::domain::Subdomain;

/// A kind of object that can be left over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnedKind {
    /// A container; before networks, because those go only without them.
    Container,
    /// A network.
    Network,
    /// A named volume.
    Volume,
    /// An image that the agent has pulled.
    Image,
}

/// An object that bears this agent's labels, or an image that it has pulled and no container uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// What it is.
    pub kind: OwnedKind,
    /// Its name on the backend; of an image a reference or, without one, its id. Of a volume it is the name that the
    /// project has for it, because generations are searched for that.
    pub name: String,
    /// What the backend knows it by.
    pub id: String,
    /// Whose it is, by its labels. Images are nobody's.
    pub tenant: Option<Subdomain>,
    /// The location it is in, where the backend has such.
    pub region: Option<String>,
    /// Its size in bytes, where that is known without a search.
    pub bytes: Option<u64>,
    /// When it was made or last changed, where the backend says so and its host's own records may be older.
    pub since: Option<jiff::Timestamp>,
}
