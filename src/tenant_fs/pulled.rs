//! The images that the agent has brought to the host: only these are its to remove.

use std::collections::BTreeSet;

use super::sealed;
use super::{FsError, TenantFs};

const PULLED: &str = "pulled.json";
/// More images than a host keeps; what is beyond stays on the host until an operator removes it.
const MOST: usize = 10_000;

impl TenantFs {
    /// The ids, `sha256:…`, of images that the agent has pulled and that may still be there. A damaged list is an empty
    /// one: no image is the agent's that it does not know for sure.
    pub fn pulled_images(&self) -> Result<BTreeSet<String>, FsError> {
        let file = self.host.own.read(PULLED).map_err(FsError::io("reading the list of pulled images"))?;
        let Some((bytes, _)) = file else { return Ok(BTreeSet::new()) };
        Ok(sealed::unseal(&bytes).unwrap_or_else(|_| {
            tracing::warn!("the list of pulled images is damaged and begins anew");
            BTreeSet::new()
        }))
    }

    /// Replaces the list, durably.
    pub fn write_pulled_images(&self, images: &BTreeSet<String>) -> Result<(), FsError> {
        let kept: BTreeSet<&String> = images.iter().take(MOST).collect();
        self.host.write_own(PULLED, &sealed::seal(&kept)).map_err(FsError::io("writing the list of pulled images"))
    }
}
