//! What a tenant's containers have written stays until a purge takes it (I4), whatever else happens to the tenant.

use std::path::PathBuf;

use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use futures::StreamExt as _;

use crate::auditor::Found;
use crate::support::agent::Agent;
use crate::support::engine::Engine;
use crate::support::{images, unique};

/// A text in the volume `store`, which `web` has at `/store`, and in `data/x`.
pub(crate) struct Marks {
    tenant: String,
    text: Option<String>,
}

impl Marks {
    pub(crate) fn of(tenant: &str) -> Self {
        Self { tenant: tenant.to_owned(), text: None }
    }

    /// They are there as long as the tenant is. A tenant that has come has none of an earlier one, and gets some.
    pub(crate) async fn check(&mut self, engine: Option<&Engine>, agent: &Agent<'_>, found: Found, story: &str) {
        if found == Found::Absent {
            self.text = None;
            return;
        }
        let file = agent.root().join(&self.tenant).join("data/x/mark");
        assert_eq!(std::fs::read_to_string(&file).ok(), self.text, "{story}: the mark in data/x");
        if let Some(engine) = engine {
            self.check_volume(engine, found, story).await;
        }
        if self.text.is_none() && found != Found::Kept {
            self.make(engine, file).await;
        }
    }

    async fn check_volume(&self, engine: &Engine, found: Found, story: &str) {
        if found == Found::Kept {
            let volume = format!("q8-{}_store", self.tenant);
            let there = engine.docker().inspect_volume(&volume).await;
            assert!(there.is_ok(), "{story}: the volume of a tenant that is kept: {there:?}");
            return;
        }
        let path = DownloadFromContainerOptionsBuilder::new().path("/store/mark").build();
        let mut archive = engine.docker().download_from_container(&self.container(), Some(path));
        let mut bytes = Vec::new();
        let text = loop {
            match archive.next().await {
                Some(Ok(part)) => bytes.extend_from_slice(&part),
                Some(Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. })) => break None,
                Some(Err(error)) => panic!("{story}: the mark in the volume cannot be read: {error}"),
                None => break Some(only_text(&bytes)),
            }
        };
        assert_eq!(text, self.text, "{story}: the mark in the volume");
    }

    async fn make(&mut self, engine: Option<&Engine>, file: PathBuf) {
        let text = unique("mark");
        std::fs::write(file, &text).expect("the agent has made data/x");
        if let Some(engine) = engine {
            let mut archive = tar::Builder::new(Vec::new());
            images::add(&mut archive, tar::EntryType::Regular, "mark", text.as_bytes(), 0o644);
            let archive = bollard::body_full(archive.into_inner().expect("a tar in memory").into());
            let path = UploadToContainerOptionsBuilder::new().path("/store").build();
            engine.docker().upload_to_container(&self.container(), Some(path), archive).await.expect("a volume");
        }
        self.text = Some(text);
    }

    fn container(&self) -> String {
        format!("q8-{}-web-1", self.tenant)
    }
}

/// The text of the only file in an archive.
fn only_text(archive: &[u8]) -> String {
    let mut archive = tar::Archive::new(archive);
    let file = archive.entries().expect("an archive").next().expect("a file").expect("it is whole");
    std::io::read_to_string(file).expect("a text")
}
