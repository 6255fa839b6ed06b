//! Images: making them available, and saying what a tenant's containers were made from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;
use futures::future::try_join_all;
use secrecy::ExposeSecret as _;

use super::engine::{Engine, EngineError};
use crate::backend::{BackendError, Deployment, ResolvedImage, ResolvedImages, Run};
use crate::compose::{PullPolicy, Service};
use crate::domain::{ImageRef, RegistryAuth, ServiceName};

/// A registry that says nothing for so long is not reachable.
const SILENCE: Duration = Duration::from_secs(60);

/// Makes every service's image available. Each image is looked at and pulled once, however many services use it.
pub(super) async fn prepare(engine: &Engine, wanted: &Deployment, run: &Run) -> Result<ResolvedImages, BackendError> {
    let mut users: BTreeMap<&ImageRef, Vec<(&ServiceName, &Service)>> = BTreeMap::new();
    let mut resolved = ResolvedImages::new();
    for (name, service) in &wanted.project.project().services {
        if let Some(id) = wanted.pinned_images.get(name)
            && let Some(image) = pinned(engine, service, id).await?
        {
            resolved.insert(name.clone(), image);
        } else {
            users.entry(&service.image).or_default().push((name, service));
        }
    }
    let images = try_join_all(users.into_iter().map(|(image, services)| async move {
        let found = available(engine, image, &services, run).await?;
        Ok::<_, BackendError>((services, found))
    }))
    .await?;
    for (services, image) in images {
        for (name, _) in services {
            resolved.insert(name.clone(), image.clone());
        }
    }
    Ok(resolved)
}

/// The image that an earlier generation ran, if the host still has it: by its reference while that means the same image,
/// else by its id.
async fn pinned(engine: &Engine, service: &Service, id: &str) -> Result<Option<ResolvedImage>, BackendError> {
    let doing = "inspecting an image";
    let found = match engine.inspect_image_id(id).await {
        Ok(found) => found,
        Err(EngineError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into_backend(doing)),
    };
    let mut resolved = resolve(&service.image, &found);
    let current = match engine.inspect_image(&service.image).await {
        Ok(current) => current.id,
        Err(EngineError::NotFound(_)) => None,
        Err(error) => return Err(error.into_backend(doing)),
    };
    if current.as_ref() != Some(&resolved.id) {
        resolved.image.clone_from(&resolved.id);
    }
    Ok(Some(resolved))
}

async fn available(
    engine: &Engine,
    image: &ImageRef,
    services: &[(&ServiceName, &Service)],
    run: &Run,
) -> Result<ResolvedImage, BackendError> {
    let (first, service) = services[0];
    let wanted_here = run.only.as_ref().is_none_or(|only| services.iter().any(|(name, _)| only.contains(*name)));
    let never = services.iter().all(|(_, service)| service.pull_policy == Some(PullPolicy::Never));
    let always = services.iter().any(|(_, service)| service.pull_policy == Some(PullPolicy::Always));
    // A digest names its content: what is there under it cannot be out of date.
    let refresh = wanted_here && !never && (always || run.pull) && image.digest().is_none();
    let present = match engine.inspect_image(image).await {
        Ok(found) => Some(found),
        Err(EngineError::NotFound(_)) => None,
        Err(error) => return Err(error.into_backend("inspecting an image")),
    };
    if let Some(found) = &present {
        // An image that came from no registry can only be the operator's own: there is nothing to refresh it from.
        let local = found.repo_digests.as_ref().is_none_or(Vec::is_empty);
        if !refresh || (local && !always) {
            return Ok(resolve(image, found));
        }
    } else if never {
        return Err(BackendError::ImageNotFound {
            service: first.clone(),
            image: image.to_string(),
            hint: " on this host, and pull_policy is never",
        });
    }
    run.progress.report(format!("pulling {image}"));
    match pull(engine, image, first, service.platform.as_deref(), run).await {
        // Nobody gave credentials for a private registry: what is here was accepted before and is used.
        Err(BackendError::RegistryDenied { .. })
            if !always && present.is_some() && credentials(image, &run.credentials).is_none() => {}
        other => other?,
    }
    match engine.inspect_image(image).await {
        Ok(found) => Ok(resolve(image, &found)),
        Err(EngineError::NotFound(_)) => Err(BackendError::ImageNotFound {
            service: first.clone(),
            image: image.to_string(),
            hint: " after the pull",
        }),
        Err(error) => Err(error.into_backend("inspecting an image")),
    }
}

fn resolve(image: &ImageRef, found: &ImageInspect) -> ResolvedImage {
    ResolvedImage {
        image: image.qualified().to_string(),
        id: found.id.clone().unwrap_or_default(),
        digest: digest_of(image, found.repo_digests.as_deref().unwrap_or_default()),
    }
}

/// The registry digest of this image under the repository it was asked for.
fn digest_of(image: &ImageRef, repo_digests: &[String]) -> Option<String> {
    repo_digests.iter().find_map(|text| {
        let other = ImageRef::parse(text).ok()?;
        (other.name() == image.name()).then(|| other.digest().map(str::to_owned))?
    })
}

/// Credentials for exactly this image's registry.
fn credentials(image: &ImageRef, known: &[RegistryAuth]) -> Option<DockerCredentials> {
    let auth = known.iter().find(|auth| auth.registry == image.registry())?;
    Some(DockerCredentials {
        username: Some(auth.username.clone()),
        password: Some(auth.password.expose_secret().to_owned()),
        serveraddress: Some(auth.registry.clone()),
        ..Default::default()
    })
}

async fn pull(
    engine: &Engine,
    image: &ImageRef,
    service: &ServiceName,
    platform: Option<&str>,
    run: &Run,
) -> Result<(), BackendError> {
    // With the tag in `fromImage` the engine pulls exactly this reference, digest included.
    let reference = match (image.tag(), image.digest()) {
        (_, Some(digest)) => format!("{}@{digest}", image.name()),
        (tag, None) => format!("{}:{}", image.name(), tag.unwrap_or("latest")),
    };
    let mut options = CreateImageOptionsBuilder::new().from_image(&reference);
    if let Some(platform) = platform {
        options = options.platform(platform);
    }
    let client = engine.client().map_err(|error| error.into_backend("pulling an image"))?;
    let stream = client.create_image(Some(options.build()), None, credentials(image, &run.credentials));
    let mut stream = std::pin::pin!(stream);
    let deadline = || BackendError::DeadlineExceeded { step: format!("pulling {image}"), details: None };
    loop {
        let next = tokio::time::timeout(SILENCE, stream.next());
        match tokio::time::timeout_at(run.deadline, next).await {
            Err(_) => return Err(deadline()),
            Ok(Err(_)) => {
                return Err(BackendError::RegistryUnavailable { service: service.clone(), image: image.to_string() });
            }
            Ok(Ok(None)) => return Ok(()),
            Ok(Ok(Some(Ok(_)))) => {}
            Ok(Ok(Some(Err(error)))) => return Err(pull_failure(error.into(), service, image)),
        }
    }
}

/// The engine passes the registry's answer on as text only.
fn pull_failure(error: EngineError, service: &ServiceName, image: &ImageRef) -> BackendError {
    let (service, image) = (service.clone(), image.to_string());
    let text = match &error {
        EngineError::Unreachable(_) => return error.into_backend("pulling an image"),
        EngineError::NotFound(message) | EngineError::Conflict(message) => message.to_ascii_lowercase(),
        EngineError::Refused { message, .. } => message.to_ascii_lowercase(),
        EngineError::Timeout => String::new(),
    };
    tracing::warn!(%error, image, "pull failed");
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["no space left"]) {
        BackendError::NoSpace
    } else if says(&["manifest unknown", "not found", "no matching manifest", "does not exist"])
        && !says(&["access denied", "unauthorized"])
    {
        BackendError::ImageNotFound { service, image, hint: " in its registry" }
    } else if says(&["denied", "unauthorized", "authentication required", "no basic auth", "forbidden"]) {
        BackendError::RegistryDenied { service, image }
    } else {
        BackendError::RegistryUnavailable { service, image }
    }
}

/// What an inspected image says about itself, for the list of a tenant's images.
pub(super) struct Facts {
    pub(super) digest: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) size: u64,
    pub(super) created: Option<jiff::Timestamp>,
}

/// Reads the facts of one image; all unknown when the image is gone.
pub(super) async fn facts(engine: &Arc<Engine>, reference: &str, id: &str) -> Result<Facts, EngineError> {
    let image = ImageRef::parse(reference).ok();
    let found = match engine.inspect_image_id(id).await {
        Ok(found) => found,
        Err(EngineError::NotFound(_)) => ImageInspect::default(),
        Err(error) => return Err(error),
    };
    let digests = found.repo_digests.unwrap_or_default();
    Ok(Facts {
        digest: image.as_ref().and_then(|image| digest_of(image, &digests)),
        tag: image.as_ref().and_then(|image| image.tag().map(str::to_owned)),
        size: found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        created: found.created.and_then(|created| created.parse().ok()),
    })
}
