//! The pretend registry and the images that have been pulled from it.

use std::collections::{BTreeMap, BTreeSet};

use crate::backend::{BackendError, HostKey, ResolvedImage};
use crate::compose::{PullPolicy, Service};
use crate::domain::{ImageRef, ServiceName};

/// Every reference is there unless its repository begins with `missing` or somebody removed it, and everything there
/// counts as pulled already.
#[derive(Debug)]
pub(super) struct Images {
    key: HostKey,
    /// References that are there although their name says they are missing.
    added: BTreeSet<String>,
    removed: BTreeSet<String>,
    /// How often each tag has moved in the registry.
    moved: BTreeMap<String, u64>,
    /// The move that the last pull of a tag saw.
    pulled: BTreeMap<String, u64>,
}

impl Images {
    pub(super) fn new(key: HostKey) -> Self {
        Self { key, added: BTreeSet::new(), removed: BTreeSet::new(), moved: BTreeMap::new(), pulled: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, reference: &str) {
        self.removed.remove(reference);
        self.added.insert(reference.to_owned());
    }

    pub(super) fn remove(&mut self, reference: &str) {
        self.added.remove(reference);
        self.removed.insert(reference.to_owned());
    }

    pub(super) fn move_tag(&mut self, reference: &str) {
        *self.moved.entry(reference.to_owned()).or_default() += 1;
    }

    fn is_known(&self, image: &ImageRef) -> bool {
        let repository = image.name().strip_prefix(image.registry()).map_or(image.name(), |rest| &rest[1..]);
        !self.removed.contains(image.as_str())
            && (self.added.contains(image.as_str()) || !repository.starts_with("missing"))
    }

    /// Pulls as the service's policy and `pull` say, and tells what the reference stands for afterwards.
    pub(super) fn resolve(
        &mut self,
        name: &ServiceName,
        service: &Service,
        pull: bool,
        pinned: Option<&String>,
    ) -> Result<ResolvedImage, BackendError> {
        let image = &service.image;
        if !self.is_known(image) {
            let hint = match &service.pull_policy {
                Some(PullPolicy::Never) => ": pull_policy is never, and it is not there",
                _ => "",
            };
            return Err(BackendError::ImageNotFound { service: name.clone(), image: image.to_string(), hint });
        }
        if let Some(id) = pinned {
            return Ok(ResolvedImage { image: image.to_string(), id: id.clone(), digest: None, pulled: false });
        }
        let newest = self.moved.get(image.as_str()).copied().unwrap_or_default();
        if service.pull_policy == Some(PullPolicy::Always) || (pull && service.pull_policy != Some(PullPolicy::Never)) {
            self.pulled.insert(image.to_string(), newest);
        }
        let seen = self.pulled.get(image.as_str()).copied().unwrap_or_default();
        Ok(ResolvedImage {
            image: image.to_string(),
            id: self.hash("image", image, seen),
            digest: Some(self.hash("manifest", image, seen)),
            // What there is, is there for all; nothing of it takes space.
            pulled: false,
        })
    }

    fn hash(&self, what: &str, image: &ImageRef, moves: u64) -> String {
        let hash = self.key.hash(&[what.as_bytes(), image.as_str().as_bytes(), &moves.to_be_bytes()]);
        format!("sha256:{hash}")
    }
}
