//! Images: making them available, and saying what a tenant's containers were made from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::{CreateImageInfo, ImageConfig, ImageInspect};
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::future::try_join_all;
use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::engine::{Engine, EngineError};
use super::gate::Allowance;
use super::layers::Layers;
use super::pulls::{PullFailure, Pulls, Steps, Wanted};
use super::{image_config, platform};
use crate::backend::{BackendError, Deployment, ImagePull, ProgressEvent, ResolvedImage, ResolvedImages, Run};
use crate::compose::{PullPolicy, Service};
use crate::crash;
use crate::domain::{ImageRef, RegistryAuth, ServiceName};

/// A registry that says nothing for so long is not reachable.
const SILENCE: Duration = Duration::from_secs(60);
/// How often a pull says how far it is.
const EVERY: Duration = Duration::from_millis(300);

/// The services that use one image on one platform.
type Users<'a> = Vec<(&'a ServiceName, &'a Service)>;

/// Notes what would be pulled, where nothing is to be pulled.
#[derive(Debug, Default)]
pub(super) struct Survey(Mutex<Vec<ImagePull>>);

impl Survey {
    fn note(&self, image: &ImageRef, users: &Users<'_>, reason: &'static str) {
        let services = users.iter().map(|(name, _)| (*name).clone()).collect();
        let pull = ImagePull { image: image.to_string(), services, reason };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(pull);
    }

    /// What was noted, in the order of the images' names.
    pub(super) fn into_pulls(self) -> Vec<ImagePull> {
        let mut pulls = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        pulls.sort_by(|a, b| (&a.image, &a.services).cmp(&(&b.image, &b.services)));
        pulls
    }
}

/// Makes every service's image available. Each image is looked at and pulled once, however many services use it. With a
/// `survey` nothing is pulled, only noted.
pub(super) async fn prepare(
    engine: &Arc<Engine>,
    pulls: &Pulls,
    wanted: &Deployment,
    run: &Run,
    survey: Option<&Survey>,
) -> Result<ResolvedImages, BackendError> {
    let mut images: BTreeMap<&ImageRef, BTreeMap<Option<&str>, Users<'_>>> = BTreeMap::new();
    let mut resolved: BTreeMap<ServiceName, Found> = BTreeMap::new();
    let host = engine.platform().await.map_err(|error| error.into_backend("asking for its version"))?;
    // A stranger's stack runs what the host runs, not what another tenant's pull has left under the same tag.
    let host = host.filter(|_| wanted.project.is_confined());
    for (name, service) in &wanted.project.project().services {
        if let Some(id) = wanted.pinned_images.get(name)
            && let Some(image) = pinned(engine, service, id, host).await?
        {
            resolved.insert(name.clone(), image);
        } else {
            let platforms = images.entry(&service.image).or_default();
            platforms.entry(service.platform.as_deref()).or_default().push((name, service));
        }
    }
    let found = try_join_all(images.into_iter().map(|(image, platforms)| async move {
        let several = platforms.len() > 1;
        let mut found = Vec::new();
        // One after the other: on most engines a reference stands for one platform's image at a time.
        for (platform, services) in platforms {
            let place = (engine, pulls, survey);
            let mut available = available(place, wanted, image, (platform, host), &services, run).await?;
            if several {
                available.resolved.image.clone_from(&available.resolved.id);
            }
            found.push((services, available));
        }
        Ok::<_, BackendError>(found)
    }))
    .await?;
    for (services, image) in found.into_iter().flatten() {
        for (name, _) in services {
            resolved.insert(name.clone(), image.clone());
        }
    }
    let allowance = Allowance::of(wanted, engine.ground());
    let of_services = resolved.into_iter().filter_map(|(name, found)| Some((wanted.service(&name)?, name, found)));
    let judged = of_services.map(|(service, name, Found { mut resolved, config })| {
        resolved.volumes = image_config::volumes(service, &config);
        if allowance.confines() {
            resolved.instead = image_config::judge(&allowance, &name, service, &config)?;
        }
        Ok((name, resolved))
    });
    judged.collect()
}

/// An image that is there, and what it says of itself.
#[derive(Clone)]
struct Found {
    resolved: ResolvedImage,
    config: ImageConfig,
}

/// The image that an earlier generation ran, if the host still has it: by its reference while that means the same image,
/// else by its id.
async fn pinned(
    engine: &Engine,
    service: &Service,
    id: &str,
    host: Option<&str>,
) -> Result<Option<Found>, BackendError> {
    let doing = "inspecting an image";
    let found = match engine.inspect_image_id(id).await {
        Ok(found) if !is_for(&found, (service.platform.as_deref(), host)) => return Ok(None),
        Ok(found) => found,
        Err(EngineError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into_backend(doing)),
    };
    let Found { mut resolved, config } = resolve(&service.image, &found);
    let current = match engine.inspect_image(&service.image).await {
        Ok(current) => current.id,
        Err(EngineError::NotFound(_)) => None,
        Err(error) => return Err(error.into_backend(doing)),
    };
    if current.as_ref() != Some(&resolved.id) {
        resolved.image.clone_from(&resolved.id);
    }
    Ok(Some(Found { resolved, config }))
}

/// What the host has under a reference, as far as it matters for pulling.
struct Present {
    /// It came from no registry, so it can only be the operator's own: there is nothing to refresh it from.
    local: bool,
    /// When its reference was last set, as far as anybody tells.
    tagged: Option<Timestamp>,
}

/// What is to be done about an image.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// What is there is used.
    Use,
    Pull,
    /// It is not there, and nobody may pull it.
    Absent(&'static str),
}

/// Compose Specification, `pull_policy`; with `asked` (an update with `pull`) as `docker compose pull` does it, but for an
/// age in the file, which holds then too. `touched` is false for services that an update is not about.
fn decide(image: &ImageRef, services: &[&Service], touched: bool, asked: bool, present: Option<&Present>) -> Decision {
    let asked = asked && touched;
    let refresh = |service: &Service, present: &Present| match &service.pull_policy {
        _ if !touched => false,
        Some(PullPolicy::Always) => true,
        _ if present.local || service.image_is_implied => false,
        Some(PullPolicy::Never | PullPolicy::Build) => false,
        Some(PullPolicy::Missing) => asked && image.tag() == Some("latest"),
        Some(PullPolicy::Refresh { after, .. }) => present.tagged.is_none_or(|tagged| {
            let age = Timestamp::now().duration_since(tagged);
            age.unsigned_abs() >= *after || age.is_negative()
        }),
        None => asked,
    };
    // Nobody has pushed what is to be built; somebody else may have taken its name.
    let may_pull = |service: &Service| {
        !service.image_is_implied && !matches!(service.pull_policy, Some(PullPolicy::Never | PullPolicy::Build))
    };
    match present {
        // A digest names its content: what is there under it cannot be out of date.
        Some(_) if image.digest().is_some() => Decision::Use,
        Some(present) if services.iter().any(|service| refresh(service, present)) => Decision::Pull,
        Some(_) => Decision::Use,
        None if services.iter().any(|service| may_pull(service)) => Decision::Pull,
        None if services.iter().any(|service| service.pull_policy == Some(PullPolicy::Never)) => {
            Decision::Absent(" on this host, and pull_policy is never")
        }
        None => Decision::Absent(" on this host, and nothing is built here"),
    }
}

/// Whether an image is for the platform that a service names, else for the host's.
fn is_for(found: &ImageInspect, (platform, host): (Option<&str>, Option<&str>)) -> bool {
    platform.or(host).is_none_or(|platform| platform::is_for(found, platform))
}

async fn available(
    (engine, pulls, survey): (&Arc<Engine>, &Pulls, Option<&Survey>),
    wanted: &Deployment,
    image: &ImageRef,
    (platform, host): (Option<&str>, Option<&str>),
    users: &Users<'_>,
    run: &Run,
) -> Result<Found, BackendError> {
    let (first, _) = users[0];
    let touched = run.only.as_ref().is_none_or(|only| users.iter().any(|(name, _)| only.contains(*name)));
    let services: Vec<&Service> = users.iter().map(|(_, service)| *service).collect();
    let fits = |found: &ImageInspect| is_for(found, (platform, host));
    let there = inspect(engine, image).await?;
    let is_foreign = there.as_ref().is_some_and(|found| !fits(found));
    let not_found = |hint| match platform.or(host.filter(|_| is_foreign)) {
        Some(platform) => BackendError::PlatformNotFound {
            service: first.clone(),
            image: image.to_string(),
            platform: platform.to_owned(),
            hint,
        },
        None => BackendError::ImageNotFound { service: first.clone(), image: image.to_string(), hint },
    };
    let usable = there.as_ref().filter(|found| fits(found));
    let reference = pulled_as(image);
    let present = usable.map(|found| Present {
        local: found.repo_digests.as_ref().is_none_or(Vec::is_empty),
        // The engine's own time may be that of the year 1: it counts what was tagged here only.
        tagged: found
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.last_tag_time.as_ref()?.parse().ok())
            .max(pulls.last(&reference, platform)),
    });
    let decision = decide(image, &services, touched, run.pull, present.as_ref());
    if let Some(survey) = survey
        && !matches!(decision, Decision::Absent(_))
    {
        let found = usable.map(|found| resolve(image, found));
        match &found {
            None => survey.note(image, users, "not on this host"),
            Some(_) if decision == Decision::Pull => survey.note(image, users, "to be refreshed"),
            Some(found) if !is_authorised(wanted, image, &found.resolved) => {
                survey.note(image, users, "its registry is asked whether the tenant may have it");
            }
            Some(_) => {}
        }
        let absent = || Found {
            resolved: ResolvedImage { image: image.qualified().to_string(), ..ResolvedImage::default() },
            config: ImageConfig::default(),
        };
        return Ok(found.unwrap_or_else(absent));
    }
    match (decision, usable) {
        (Decision::Absent(hint), _) => return Err(not_found(hint)),
        (Decision::Use, Some(found)) => {
            let found = resolve(image, found);
            authorise(engine, wanted, image, &found.resolved, first, run).await?;
            return Ok(found);
        }
        (Decision::Use, None) | (Decision::Pull, _) => {}
    }
    let credentials = credentials(image, &run.credentials);
    let asked = Wanted { reference, platform: platform.map(str::to_owned), credentials: credentials.cloned() };
    let puller = Arc::clone(engine);
    let pulling = pulls.join(asked, run.deadline, &run.progress, |wanted, steps| pull(puller, wanted, steps));
    let digest = match pulling.await {
        Ok(digest) => digest,
        // Nobody gave credentials for a private registry: what is here was accepted before and is used.
        Err(PullFailure::Denied) if credentials.is_none() && !is_always(&services) => {
            let accepted = usable.map(|found| resolve(image, found));
            let accepted = accepted.filter(|found| is_authorised(wanted, image, &found.resolved));
            return accepted.ok_or_else(|| failed(PullFailure::Denied, first, image));
        }
        Err(PullFailure::NotFound) => return Err(not_found(" in its registry")),
        Err(failure) => return Err(failed(failure, first, image)),
    };
    let now = match inspect(engine, image).await? {
        Some(found) if fits(&found) => found,
        // An image of one platform is pulled whatever that is, if nobody names one.
        Some(_) if platform.is_none() => {
            return Err(BackendError::PlatformNotFound {
                service: first.clone(),
                image: image.to_string(),
                platform: host.unwrap_or_default().to_owned(),
                hint: " in its registry",
            });
        }
        _ => return Err(not_found(" after the pull")),
    };
    let is_new = |found: &ImageInspect| there.as_ref().is_none_or(|before| before.id != found.id);
    let brought = is_new(&now);
    let now = resolve(image, &now);
    if brought {
        run.has_brought(&now.resolved.id);
    }
    match (&digest, &now.resolved.digest) {
        (Some(digest), Some(other)) if digest == other => return Ok(now),
        // Another tenant's pull has moved the tag meanwhile: what this one was allowed is what it has pulled. (An image of
        // a second platform has no digest: the engine keeps that of the list for the first.)
        (Some(digest), Some(_)) => {
            if let Ok(pulled) = ImageRef::parse(&format!("{}@{digest}", image.name()))
                && let Some(found) = inspect(engine, &pulled).await?.filter(&fits)
            {
                let is_new = is_new(&found);
                let Found { resolved, config } = resolve(&pulled, &found);
                if is_new {
                    run.has_brought(&resolved.id);
                }
                let image = resolved.id.clone();
                return Ok(Found { resolved: ResolvedImage { image, ..resolved }, config });
            }
        }
        _ => {}
    }
    authorise(engine, wanted, image, &now.resolved, first, run).await?;
    Ok(now)
}

/// Whether the tenant may use an image that is on the host without its registry being asked: it came from none, the tenant
/// was accepted with it before, or all tenants are the operator's own.
fn is_authorised(wanted: &Deployment, image: &ImageRef, resolved: &ResolvedImage) -> bool {
    let known = |digest: &String| wanted.authorised_images.contains(&image.identity(digest));
    !wanted.project.is_confined() || resolved.digest.as_ref().is_none_or(known)
}

/// Asks the registry whether the tenant may have what another tenant's credentials have brought to the host: else knowing
/// the name of a private image would be enough. A registry that cannot be asked has not said yes.
async fn authorise(
    engine: &Engine,
    wanted: &Deployment,
    image: &ImageRef,
    resolved: &ResolvedImage,
    service: &ServiceName,
    run: &Run,
) -> Result<(), BackendError> {
    let Some(digest) = resolved.digest.as_deref().filter(|_| !is_authorised(wanted, image, resolved)) else {
        return Ok(());
    };
    let reference = format!("{}@{digest}", image.name());
    run.progress.report(format!("asking the registry of {image}"));
    let credentials = credentials(image, &run.credentials).map(engine_credentials);
    let Err(error) = engine.ask_registry(&reference, credentials).await else { return Ok(()) };
    let failure = match pull_failure(&error, &reference) {
        // Which of the two it is, is nobody's business who may not have it.
        PullFailure::NotFound => PullFailure::Denied,
        other => other,
    };
    Err(failed(failure, service, image))
}

fn engine_credentials(auth: &RegistryAuth) -> DockerCredentials {
    DockerCredentials {
        username: Some(auth.username.clone()),
        password: Some(auth.password.expose_secret().to_owned()),
        serveraddress: Some(auth.registry.clone()),
        ..Default::default()
    }
}

fn is_always(services: &[&Service]) -> bool {
    services.iter().any(|service| service.pull_policy == Some(PullPolicy::Always))
}

async fn inspect(engine: &Engine, image: &ImageRef) -> Result<Option<ImageInspect>, BackendError> {
    match engine.inspect_image(image).await {
        Ok(found) => Ok(Some(found)),
        Err(EngineError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into_backend("inspecting an image")),
    }
}

/// A failed pull in the words of whoever asked.
fn failed(failure: PullFailure, service: &ServiceName, image: &ImageRef) -> BackendError {
    let (service, image) = (service.clone(), image.to_string());
    match failure {
        PullFailure::NotFound => BackendError::ImageNotFound { service, image, hint: " in its registry" },
        PullFailure::Denied => BackendError::RegistryDenied { service, image },
        PullFailure::RegistryUnavailable => BackendError::RegistryUnavailable { service, image },
        PullFailure::NoSpace => BackendError::NoSpace,
        PullFailure::EngineUnavailable => BackendError::Unavailable,
        PullFailure::Deadline => BackendError::DeadlineExceeded { step: format!("pulling {image}"), details: None },
    }
}

fn resolve(image: &ImageRef, found: &ImageInspect) -> Found {
    let resolved = ResolvedImage {
        image: image.qualified().to_string(),
        id: found.id.clone().unwrap_or_default(),
        digest: digest_of(image, found.repo_digests.as_deref().unwrap_or_default()),
        ..ResolvedImage::default()
    };
    Found { resolved, config: found.config.clone().unwrap_or_default() }
}

/// The registry digest of this image under the repository it was asked for.
fn digest_of(image: &ImageRef, repo_digests: &[String]) -> Option<String> {
    repo_digests.iter().find_map(|text| {
        let other = ImageRef::parse(text).ok()?;
        let digest = other.digest()?;
        (other.identity(digest) == image.identity(digest)).then(|| digest.to_owned())
    })
}

/// Credentials for exactly this image's registry.
fn credentials<'a>(image: &ImageRef, known: &'a [RegistryAuth]) -> Option<&'a RegistryAuth> {
    // Host names have no case.
    known.iter().find(|auth| auth.registry.eq_ignore_ascii_case(image.registry()))
}

/// With the tag or digest in it the engine pulls exactly this reference.
fn pulled_as(image: &ImageRef) -> String {
    match (image.tag(), image.digest()) {
        (_, Some(digest)) => format!("{}@{digest}", image.name()),
        (tag, None) => format!("{}:{}", image.name(), tag.unwrap_or("latest")),
    }
}

async fn pull(engine: Arc<Engine>, wanted: Wanted, steps: Steps) -> Result<Option<String>, PullFailure> {
    let mut options = CreateImageOptionsBuilder::new().from_image(&wanted.reference);
    if let Some(platform) = &wanted.platform {
        options = options.platform(platform);
    }
    let credentials = wanted.credentials.as_ref().map(engine_credentials);
    let client = engine.client().map_err(|error| pull_failure(&error, &wanted.reference))?;
    let messages = client.create_image(Some(options.build()), None, credentials);
    let (begun, mut layers) = (Instant::now(), Layers::default());
    let following = follow(messages, &wanted.reference, &mut layers, |step, far| steps.say(step, far));
    let pulled = crash::around("pull", following).await;
    engine.metrics().pulled_bytes(layers.downloaded());
    engine.metrics().pull(pulled.as_ref().err().copied().map(PullFailure::reason), begun.elapsed());
    pulled
}

/// Reads what the engine says during a pull, and tells how far it is. The result is the digest that the registry gave.
async fn follow<E: Into<EngineError>>(
    messages: impl Stream<Item = Result<CreateImageInfo, E>>,
    image: &str,
    layers: &mut Layers,
    mut say: impl FnMut(String, ProgressEvent),
) -> Result<Option<String>, PullFailure> {
    let mut messages = std::pin::pin!(messages);
    let mut digest = None;
    say(format!("pulling {image}"), layers.far(image));
    let mut said = Instant::now();
    loop {
        match tokio::time::timeout(SILENCE, messages.next()).await {
            Err(_) => return Err(PullFailure::RegistryUnavailable),
            Ok(None) => {
                say(format!("pulled {image}{layers}"), layers.far(image));
                return Ok(digest);
            }
            Ok(Some(Err(error))) => return Err(pull_failure(&error.into(), image)),
            Ok(Some(Ok(message))) => {
                digest = message.status.as_deref().and_then(told_digest).or(digest);
                layers.note(&message);
            }
        }
        if said.elapsed() >= EVERY {
            say(format!("pulling {image}{layers}"), layers.far(image));
            said = Instant::now();
        }
    }
}

/// `Digest: sha256:…`, which the engine says once it knows what the tag stands for.
fn told_digest(status: &str) -> Option<String> {
    let digest = status.strip_prefix("Digest: ")?;
    ImageRef::parse(&format!("x@{digest}")).ok()?.digest().map(str::to_owned)
}

/// The engine passes the registry's answer on as text only.
fn pull_failure(error: &EngineError, image: &str) -> PullFailure {
    tracing::warn!(%error, image, "pull failed");
    let text = match error {
        EngineError::Unreachable(_) => return PullFailure::EngineUnavailable,
        EngineError::NotFound(message) | EngineError::Conflict(message) => message.to_ascii_lowercase(),
        EngineError::Refused { message, .. } => message.to_ascii_lowercase(),
        EngineError::Timeout => String::new(),
    };
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["no space left"]) {
        PullFailure::NoSpace
    } else if says(&["manifest unknown", "not found", "no matching manifest", "does not exist", "does not match"])
        && !says(&["access denied", "unauthorized"])
    {
        PullFailure::NotFound
    } else if says(&["denied", "unauthorized", "authentication required", "no basic auth", "forbidden"]) {
        PullFailure::Denied
    } else {
        PullFailure::RegistryUnavailable
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

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn image(text: &str) -> ImageRef {
        ImageRef::parse(text).expect("a reference")
    }

    fn service(policy: Option<PullPolicy>) -> Service {
        let mut service = Service::of(image("x:1"));
        service.pull_policy = policy;
        service
    }

    fn daily() -> PullPolicy {
        PullPolicy::Refresh { word: "daily".to_owned(), after: Duration::from_secs(86_400) }
    }

    #[test]
    fn what_is_done_about_an_image() {
        use Decision::{Pull, Use};
        const HERE: Option<(bool, i64)> = Some((false, 3600));
        const OLD: Option<(bool, i64)> = Some((false, 100_000));
        const LOCAL: Option<(bool, i64)> = Some((true, 100_000));
        let never = Decision::Absent(" on this host, and pull_policy is never");
        let built = || Decision::Absent(" on this host, and nothing is built here");
        for (policy, reference, asked, there, decision) in [
            (None, "x:1", false, None, Pull),
            (None, "x:1", false, OLD, Use),
            (None, "x:1", true, HERE, Pull),
            (None, "x:1", true, LOCAL, Use),
            (Some(PullPolicy::Missing), "x:1", false, None, Pull),
            (Some(PullPolicy::Missing), "x:1", true, OLD, Use),
            (Some(PullPolicy::Missing), "x", true, HERE, Pull),
            (Some(PullPolicy::Missing), "x", false, HERE, Use),
            (Some(PullPolicy::Always), "x:1", false, HERE, Pull),
            (Some(PullPolicy::Always), "x:1", false, LOCAL, Pull),
            (Some(PullPolicy::Never), "x:1", true, HERE, Use),
            (Some(PullPolicy::Never), "x:1", false, None, never),
            (Some(PullPolicy::Build), "x:1", true, HERE, Use),
            (Some(PullPolicy::Build), "x:1", false, None, built()),
            (Some(daily()), "x:1", false, None, Pull),
            (Some(daily()), "x:1", false, HERE, Use),
            (Some(daily()), "x:1", true, HERE, Use),
            (Some(daily()), "x:1", false, OLD, Pull),
            (Some(daily()), "x:1", false, LOCAL, Use),
        ] {
            let now = Timestamp::now();
            let tagged = |age: i64| now.checked_sub(jiff::SignedDuration::from_secs(age)).ok();
            let present = there.map(|(local, age)| Present { local, tagged: tagged(age) });
            let service = service(policy);
            let decided = decide(&image(reference), &[&service], true, asked, present.as_ref());
            assert_eq!(decided, decision, "{:?} {reference} asked={asked} {there:?}", service.pull_policy);
        }
        // By digest nothing can be out of date; what an update is not about is not refreshed; what is built is not pulled.
        let (always, mut implied) = (service(Some(PullPolicy::Always)), service(None));
        implied.image_is_implied = true;
        let present = Present { local: false, tagged: None };
        let digest = image(&format!("x@sha256:{}", "a".repeat(64)));
        assert_eq!(decide(&digest, &[&always], true, true, Some(&present)), Use);
        assert_eq!(decide(&image("x:1"), &[&always], false, true, Some(&present)), Use);
        assert_eq!(decide(&image("x:1"), &[&implied], true, true, Some(&present)), Use);
        assert_eq!(decide(&image("x:1"), &[&implied], true, true, None), built());
        // One service that may pull is enough.
        let never = service(Some(PullPolicy::Never));
        assert_eq!(decide(&image("x:1"), &[&never, &always], true, false, None), Pull);
        assert_eq!(
            decide(&image("x:1"), &[&service(Some(daily()))], true, false, Some(&present)),
            Pull,
            "of unknown age"
        );
    }

    #[test]
    fn credentials_are_for_one_registry() {
        let auth = |registry: &str| RegistryAuth {
            registry: RegistryAuth::parse_host(registry).expect("a registry"),
            username: "user".to_owned(),
            password: "secret".into(),
        };
        for (registry, reference, given) in [
            ("docker.io", "nginx", true),
            ("index.docker.io", "library/nginx:1", true),
            ("registry-1.docker.io", "docker.io/library/nginx", true),
            ("https://index.docker.io/v1/", "nginx", true),
            ("https://index.docker.io/v1/", "index.docker.io/library/nginx", true),
            ("docker.io", "registry-1.docker.io/library/nginx", true),
            ("docker.io", "ghcr.io/nginx", false),
            ("ghcr.io", "nginx", false),
            ("ghcr.io", "ghcr.io/a/b:1", true),
            ("GHCR.io", "ghcr.io/a/b:1", true),
            ("ghcr.io", "GHCR.io/a/b:1", true),
            ("ghcr.io", "a.ghcr.io/b", false),
            ("localhost:5000", "localhost:5000/x", true),
            ("localhost:5000", "localhost:5001/x", false),
            ("localhost:5000", "localhost/x", false),
            ("r.example", "r.example:443/x", false),
        ] {
            let known = [auth("elsewhere.example"), auth(registry)];
            assert_eq!(credentials(&image(reference), &known).is_some(), given, "{registry} for {reference}");
        }
    }

    type Message = Result<CreateImageInfo, EngineError>;

    fn message(text: &str) -> CreateImageInfo {
        serde_json::from_str(text).expect("a message of the engine")
    }

    #[tokio::test(start_paused = true)]
    async fn a_pull_tells_how_far_it_is_and_not_too_often() {
        let downloading = (0..100).map(|n| {
            message(&format!(
                r#"{{"id": "a", "status": "Downloading", "progressDetail": {{"current": {n}, "total": 1000}}}}"#
            ))
        });
        let messages = stream::iter(downloading).then(|message| async {
            tokio::time::sleep(Duration::from_millis(30)).await;
            Message::Ok(message)
        });
        let mut said = Vec::new();
        let told = follow(messages, "x:1", &mut Layers::default(), |step, _| said.push(step)).await;
        assert_eq!(told.expect("it ends well"), None);
        assert_eq!(said.len(), 12, "{said:?}");
        assert_eq!(
            said[..3],
            ["pulling x:1", "pulling x:1: 0/1 layers, 9 B of 1.0 kB", "pulling x:1: 0/1 layers, 19 B of 1.0 kB"]
        );
    }

    #[tokio::test]
    async fn a_pull_tells_what_it_has_pulled() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let messages = [
            r#"{"status": "Pulling from library/x", "id": "1"}"#.to_owned(),
            r#"{"status": "Digest: sha256:short"}"#.to_owned(),
            format!(r#"{{"status": "Digest: {digest}"}}"#),
            r#"{"status": "Status: Downloaded newer image for x:1"}"#.to_owned(),
        ];
        let messages = stream::iter(messages.map(|text| Message::Ok(message(&text))));
        assert_eq!(follow(messages, "x:1", &mut Layers::default(), |_, _| {}).await, Ok(Some(digest)));
    }

    #[tokio::test(start_paused = true)]
    async fn how_a_pull_fails() {
        let silent = stream::pending::<Message>();
        assert_eq!(follow(silent, "x", &mut Layers::default(), |_, _| {}).await, Err(PullFailure::RegistryUnavailable));
        for (text, failure) in [
            ("manifest for x:1 not found: manifest unknown: manifest unknown", PullFailure::NotFound),
            ("no matching manifest for linux/arm64 in the manifest list entries", PullFailure::NotFound),
            (
                "image with reference x was found but does not match the specified platform: wanted linux/arm64",
                PullFailure::NotFound,
            ),
            (
                "pull access denied for x, repository does not exist or may require 'docker login': denied",
                PullFailure::Denied,
            ),
            ("Head http://r/v2/x/manifests/1: no basic auth credentials", PullFailure::Denied),
            ("unauthorized: authentication required", PullFailure::Denied),
            ("write /var/lib/docker/tmp/x: no space left on device", PullFailure::NoSpace),
            ("Get https://r/v2/: dial tcp: connection refused", PullFailure::RegistryUnavailable),
        ] {
            let refused = EngineError::Refused { status: 500, message: text.to_owned() };
            let messages = stream::iter([Ok(message(r#"{"status": "Pulling from x"}"#)), Err(refused)]);
            assert_eq!(follow(messages, "x", &mut Layers::default(), |_, _| {}).await, Err(failure), "{text}");
        }
        let gone = stream::iter([Message::Err(EngineError::Unreachable("reset".to_owned()))]);
        assert_eq!(follow(gone, "x", &mut Layers::default(), |_, _| {}).await, Err(PullFailure::EngineUnavailable));
    }
}
