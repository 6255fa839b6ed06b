//! How far a pull is, counted from the messages that the engine sends meanwhile. Pure.

use std::collections::BTreeMap;
use std::fmt;

use bollard::models::CreateImageInfo;
use bytesize::ByteSize;

use crate::backend::ProgressEvent;

/// The layers of the image that is being pulled, by their short ids.
#[derive(Default)]
pub(super) struct Layers(BTreeMap<String, Layer>);

#[derive(Default)]
struct Layer {
    downloaded: u64,
    /// Zero until the engine says it; it never does for a layer that is there already.
    size: u64,
    done: bool,
}

impl Layers {
    /// Takes one message in. Those that are about no layer change nothing.
    pub(super) fn note(&mut self, message: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&message.id, &message.status) else { return };
        let known =
            ["Pulling fs layer", "Waiting", "Downloading", "Verifying Checksum", "Download complete", "Extracting"];
        let (ended, retrying) =
            (matches!(status.as_str(), "Pull complete" | "Already exists"), status.starts_with("Retrying"));
        if !(ended || retrying || known.contains(&status.as_str())) {
            // "Pulling from library/nginx" has the tag in place of a layer's id.
            return;
        }
        let layer = self.0.entry(id.clone()).or_default();
        match status.as_str() {
            "Pulling fs layer" | "Waiting" => {}
            "Downloading" => {
                let detail = message.progress_detail.as_ref();
                let bytes = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
                layer.downloaded = bytes(detail.and_then(|detail| detail.current));
                layer.size = bytes(detail.and_then(|detail| detail.total)).max(layer.downloaded);
            }
            _ if retrying => layer.downloaded = 0,
            _ => layer.downloaded = layer.size,
        }
        layer.done |= ended;
    }
}

impl Layers {
    /// Bytes that have been downloaded so far, what was there already left out.
    pub(super) fn downloaded(&self) -> u64 {
        self.0.values().map(|layer| layer.downloaded).fold(0, u64::saturating_add)
    }

    /// How far the pull of an image is.
    pub(super) fn far(&self, image: &str) -> ProgressEvent {
        let sum = |of: fn(&Layer) -> u64| self.0.values().map(of).fold(0, u64::saturating_add);
        ProgressEvent::Pull {
            image: image.to_owned(),
            layers_done: sum(|layer| u64::from(layer.done)),
            layers: self.0.len() as u64,
            bytes_done: sum(|layer| layer.downloaded),
            bytes: sum(|layer| layer.size),
        }
    }
}

impl fmt::Display for Layers {
    /// `: 3/7 layers, 41.2 MB of 90.0 MB`, as far as that is known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        let done = self.0.values().filter(|layer| layer.done).count();
        write!(f, ": {done}/{} layers", self.0.len())?;
        let sum = |of: fn(&Layer) -> u64| ByteSize::b(self.0.values().map(of).fold(0, u64::saturating_add));
        match sum(|layer| layer.size) {
            ByteSize(0) => Ok(()),
            size => write!(f, ", {} of {}", sum(|layer| layer.downloaded).display().si(), size.display().si()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: &str, status: &str, detail: &str) -> CreateImageInfo {
        let text = format!(r#"{{"id": "{id}", "status": "{status}", "progressDetail": {detail}}}"#);
        serde_json::from_str(&text).expect("a message of the engine")
    }

    #[test]
    fn layers_and_bytes_are_counted() {
        let mut layers = Layers::default();
        for (id, status, detail, said) in [
            ("1.27", "Pulling from library/nginx", "{}", ""),
            ("a", "Pulling fs layer", "{}", ": 0/1 layers"),
            ("b", "Already exists", "{}", ": 1/2 layers"),
            ("c", "Waiting", "{}", ": 1/3 layers"),
            ("a", "Downloading", r#"{"current": 1200000, "total": 30000000}"#, ": 1/3 layers, 1.2 MB of 30.0 MB"),
            ("c", "Downloading", r#"{"current": 500000, "total": 1000000}"#, ": 1/3 layers, 1.7 MB of 31.0 MB"),
            ("c", "Retrying in 3 seconds", "{}", ": 1/3 layers, 1.2 MB of 31.0 MB"),
            ("c", "Download complete", "{}", ": 1/3 layers, 2.2 MB of 31.0 MB"),
            ("c", "Extracting", r#"{"current": 1, "total": 9}"#, ": 1/3 layers, 2.2 MB of 31.0 MB"),
            ("c", "Pull complete", "{}", ": 2/3 layers, 2.2 MB of 31.0 MB"),
            ("a", "Downloading", r#"{"current": 31000000}"#, ": 2/3 layers, 32.0 MB of 32.0 MB"),
            ("a", "Downloading", r#"{"current": -1, "total": -1}"#, ": 2/3 layers, 1.0 MB of 1.0 MB"),
            ("a", "Pull complete", "{}", ": 3/3 layers, 1.0 MB of 1.0 MB"),
            ("", "Digest: sha256:0", "{}", ": 3/3 layers, 1.0 MB of 1.0 MB"),
        ] {
            layers.note(&message(id, status, detail));
            assert_eq!(layers.to_string(), said, "{id} {status} {detail}");
        }
        let image = "x:1".to_owned();
        let far = ProgressEvent::Pull { image, layers_done: 3, layers: 3, bytes_done: 1_000_000, bytes: 1_000_000 };
        assert_eq!(layers.far("x:1"), far);
    }
}
