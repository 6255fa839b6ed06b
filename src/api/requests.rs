//! From JSON bodies to the orchestrator's requests. Pure. Every refusal names its field.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use super::error::ApiError;
use super::json::{self, Value};
use crate::domain::{
    BackendName, ErrorCode, FileContent, InvalidName, Limits, ObjectName, Placement, ProjectPath, RegistryAuth,
    ServiceName, Subdomain, TenantId,
};
use crate::orchestrator::{LeftOverKind, ProvisionRequest, PruneRequest, UpdateRequest};

/// The largest Compose or env text in bytes (design: "Compose text up to 1 MiB").
const MAX_TEXT: usize = 1 << 20;
/// The most files of one request: each becomes an inode on the host.
const MAX_FILES: usize = 2000;
/// The most profiles, services and registries of one request.
const MAX_NAMES: usize = 200;
/// The longest reason for a cordon, in bytes.
const MAX_REASON: usize = 200;
const DEFAULT_MODE: u32 = 0o644;

/// Reads the body of `POST /v1/tenants/provision`.
pub(super) fn provision(body: &[u8]) -> Result<ProvisionRequest, ApiError> {
    let mut object = json::parse(body)?.object()?;
    let (placement, fallback) = object.take("placement").map(placement).transpose()?.unzip();
    let request = ProvisionRequest {
        id: name(&object.need("id")?, TenantId::parse)?,
        subdomain: name(&object.need("subdomain")?, Subdomain::parse)?,
        compose: text(&object.need("compose_content")?)?,
        env: object.take("env_content").map_or(Ok(String::new()), |value| text(&value))?,
        files: whole_files(object.take("files").as_ref())?,
        profiles: object.take("profiles").map_or(Ok(BTreeSet::new()), |value| profiles(&value))?,
        placement,
        fallback: fallback.unwrap_or(false),
        limits: object.take("limits").map_or(Ok(Limits::default()), limits)?,
        registry_auth: object.take("registry_auth").map_or(Ok(Vec::new()), |value| registry_auth(&value))?,
        adopt: object.take("adopt").map_or(Ok(false), |value| value.boolean())?,
        expect_plan: object.take("expect_plan").map(|value| plan_hash(&value)).transpose()?,
    };
    object.finish()?;
    Ok(request)
}

/// Reads the body of `POST /v1/tenants/update`.
pub(super) fn update(body: &[u8]) -> Result<UpdateRequest, ApiError> {
    let mut object = json::parse(body)?.object()?;
    let request = UpdateRequest {
        subdomain: name(&object.need("subdomain")?, Subdomain::parse)?,
        compose: object.take("compose_content").map(|value| text(&value)).transpose()?,
        env: object.take("env_content").map(|value| text(&value)).transpose()?,
        files: changed_files(object.take("files").as_ref())?,
        profiles: object.take("profiles").map(|value| profiles(&value)).transpose()?,
        services: object.take("services").map_or(Ok(BTreeSet::new()), |value| services(&value))?,
        limits: object.take("limits").map(limits).transpose()?,
        pull: object.take("pull").map_or(Ok(true), |value| value.boolean())?,
        registry_auth: object.take("registry_auth").map_or(Ok(Vec::new()), |value| registry_auth(&value))?,
        expect_plan: object.take("expect_plan").map(|value| plan_hash(&value)).transpose()?,
    };
    object.finish()?;
    Ok(request)
}

fn plan_hash(value: &Value<'_>) -> Result<String, ApiError> {
    let hash = value.string()?;
    if hash.len() == 64 && hash.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'a'..=b'f')) {
        Ok(hash)
    } else {
        Err(value.refuse(ErrorCode::InvalidRequest, "must be the plan_hash of a plan"))
    }
}

/// Reads the body of `POST /v1/system/cordon`; none is one without a reason.
pub(super) fn cordon(body: &[u8]) -> Result<Option<String>, ApiError> {
    let Some(body) = json::parse_optional(body)? else { return Ok(None) };
    let mut object = body.object()?;
    let reason = object.take("reason").map(|value| {
        let reason = value.string()?;
        let is_plain = (1..=MAX_REASON).contains(&reason.len()) && !reason.chars().any(char::is_control);
        if is_plain {
            Ok(reason)
        } else {
            let allowed = format!("must be one line of 1 to {MAX_REASON} bytes");
            Err(value.refuse(ErrorCode::InvalidRequest, allowed))
        }
    });
    let reason = reason.transpose()?;
    object.finish()?;
    Ok(reason)
}

/// Reads the body of `POST /v1/system/prune`; none is a dry run for everything.
pub(super) fn prune(body: &[u8]) -> Result<PruneRequest, ApiError> {
    let mut request = PruneRequest { dry_run: true, kinds: BTreeSet::new(), volumes: BTreeSet::new() };
    let Some(body) = json::parse_optional(body)? else { return Ok(request) };
    let mut object = body.object()?;
    if let Some(value) = object.take("dry_run") {
        request.dry_run = value.boolean()?;
    }
    if let Some(value) = object.take("kinds") {
        request.kinds = list(&value)?.iter().map(left_over_kind).collect::<Result<_, _>>()?;
    }
    if let Some(value) = object.take("volumes") {
        let volume = |item: &Value<'_>| name(item, ObjectName::parse).map(|name| name.as_str().to_owned());
        request.volumes = list(&value)?.iter().map(volume).collect::<Result<_, _>>()?;
    }
    object.finish()?;
    Ok(request)
}

fn left_over_kind(value: &Value<'_>) -> Result<LeftOverKind, ApiError> {
    match value.string()?.as_str() {
        "container" => Ok(LeftOverKind::Container),
        "network" => Ok(LeftOverKind::Network),
        "volume" => Ok(LeftOverKind::Volume),
        "image" => Ok(LeftOverKind::Image),
        "archive" => Ok(LeftOverKind::Archive),
        _ => Err(value.refuse(ErrorCode::InvalidRequest, "must be container, network, volume, image or archive")),
    }
}

fn name<T>(value: &Value<'_>, parse: fn(&str) -> Result<T, InvalidName>) -> Result<T, ApiError> {
    parse(&value.string()?).map_err(|refusal| {
        let refusal = ApiError::from(refusal);
        value.refuse(refusal.code, refusal.message)
    })
}

fn text(value: &Value<'_>) -> Result<String, ApiError> {
    let text = value.string()?;
    if text.len() > MAX_TEXT {
        return Err(value.refuse(ErrorCode::PayloadTooLarge, "is larger than 1 MiB"));
    }
    Ok(text)
}

fn list<'a>(value: &Value<'a>) -> Result<Vec<Value<'a>>, ApiError> {
    let items = value.array()?;
    if items.len() > MAX_NAMES {
        return Err(value.refuse(ErrorCode::InvalidRequest, format!("must have {MAX_NAMES} entries at most")));
    }
    Ok(items)
}

fn profiles(value: &Value<'_>) -> Result<BTreeSet<String>, ApiError> {
    list(value)?
        .iter()
        .map(|item| {
            let profile = item.string()?;
            if is_profile(&profile) {
                Ok(profile)
            } else {
                Err(item.refuse(
                    ErrorCode::InvalidRequest,
                    "must be a profile's name: letters, digits and . _ -, starting with a letter or digit, or * for all",
                ))
            }
        })
        .collect()
}

/// Compose Specification, `profiles`: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`; `*` activates all, as for docker compose.
fn is_profile(text: &str) -> bool {
    text == "*"
        || ((1..=128).contains(&text.len())
            && text.as_bytes()[0].is_ascii_alphanumeric()
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-')))
}

fn services(value: &Value<'_>) -> Result<BTreeSet<ServiceName>, ApiError> {
    list(value)?.iter().map(|item| name(item, ServiceName::parse)).collect()
}

/// Where, and whether another region will do.
fn placement(value: Value<'_>) -> Result<(Placement, bool), ApiError> {
    let mut object = value.object()?;
    let backend = object.need("backend")?;
    let backend = match backend.string()?.as_str() {
        "docker" => BackendName::Docker,
        "memory" => BackendName::Memory,
        "aci" => BackendName::Aci,
        _ => return Err(backend.refuse(ErrorCode::InvalidRequest, "must be docker, memory or aci")),
    };
    let region = object.take("region").map(|value| region(&value)).transpose()?;
    let fallback = object.take("fallback").map_or(Ok(false), |value| value.boolean())?;
    object.finish()?;
    Ok((Placement { backend, region }, fallback))
}

fn region(value: &Value<'_>) -> Result<String, ApiError> {
    let region = value.string()?;
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if (1..=64).contains(&region.len()) && region.bytes().all(good) {
        Ok(region)
    } else {
        Err(value.refuse(ErrorCode::InvalidRequest, "must be a location's name: 1 to 64 of a-z, 0-9 and -"))
    }
}

/// The most that one tenant may have in sum: `cpus` with a fraction, `memory` in bytes, the rest counted.
fn limits(value: Value<'_>) -> Result<Limits, ApiError> {
    let mut object = value.object()?;
    let mut count = |name| object.take(name).map(|value| value.count()).transpose();
    let limits = Limits {
        services: count("services")?,
        containers: count("containers")?,
        networks: count("networks")?,
        volumes: count("volumes")?,
        ports: count("ports")?,
        memory: count("memory")?,
        pids: count("pids")?,
        nano_cpus: object.take("cpus").map(|value| cpus(&value)).transpose()?,
    };
    object.finish()?;
    Ok(limits)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
fn cpus(value: &Value<'_>) -> Result<u64, ApiError> {
    let cpus = value.number()?;
    if (0.0..=1e6).contains(&cpus) {
        Ok((cpus * 1e9).round() as u64)
    } else {
        Err(value.refuse(ErrorCode::InvalidRequest, "must be a number of CPUs from 0 to 1000000"))
    }
}

fn registry_auth(value: &Value<'_>) -> Result<Vec<RegistryAuth>, ApiError> {
    let mut all: Vec<RegistryAuth> = Vec::new();
    for item in list(value)? {
        let mut object = item.object()?;
        let host = object.need("registry")?;
        let registry = name(&host, RegistryAuth::parse_host)?;
        if all.iter().any(|other| other.registry == registry) {
            return Err(host.refuse(ErrorCode::InvalidRequest, "is there twice"));
        }
        let username = filled(&object.need("username")?)?;
        let password = SecretString::from(filled(&object.need("password")?)?);
        object.finish()?;
        all.push(RegistryAuth { registry, username, password });
    }
    Ok(all)
}

fn filled(value: &Value<'_>) -> Result<String, ApiError> {
    let text = value.string()?;
    if text.is_empty() { Err(value.refuse(ErrorCode::InvalidRequest, "must not be empty")) } else { Ok(text) }
}

fn whole_files(value: Option<&Value<'_>>) -> Result<BTreeMap<ProjectPath, FileContent>, ApiError> {
    read_files(value, |content| {
        if content.is_null() {
            // Deleting means something in an update; here it would be a misunderstanding.
            return Err(content.refuse(ErrorCode::InvalidRequest, "must be a text or an object with text or base64"));
        }
        file(content)
    })
}

fn changed_files(value: Option<&Value<'_>>) -> Result<BTreeMap<ProjectPath, Option<FileContent>>, ApiError> {
    read_files(value, |content| if content.is_null() { Ok(None) } else { file(content).map(Some) })
}

fn read_files<T: Stays>(
    value: Option<&Value<'_>>,
    read: impl Fn(&Value<'_>) -> Result<T, ApiError>,
) -> Result<BTreeMap<ProjectPath, T>, ApiError> {
    let Some(value) = value else { return Ok(BTreeMap::new()) };
    let entries = value.map()?;
    if entries.len() > MAX_FILES {
        return Err(value.refuse(ErrorCode::InvalidRequest, format!("must have {MAX_FILES} files at most")));
    }
    let mut files = BTreeMap::new();
    for (key, content) in entries {
        let path = ProjectPath::parse(&key)
            .map_err(|refusal| content.refuse(ErrorCode::InvalidFilePath, refusal.to_string()))?;
        files.insert(path, read(&content)?);
    }
    let staying = files.iter().filter(|(_, content)| content.stays()).map(|(path, _)| path);
    match ProjectPath::conflict(staying) {
        None => Ok(files),
        Some((one, other)) => Err(value
            .refuse(
                ErrorCode::InvalidFilePath,
                format!("{one} and {other} cannot both be files: they differ in case only, or one is a directory of the other"),
            )
            .at_field(format!("files[{}]", json::quoted(other.as_str())))),
    }
}

/// Whether a file is there after the request.
trait Stays {
    fn stays(&self) -> bool;
}

impl Stays for FileContent {
    fn stays(&self) -> bool {
        true
    }
}

impl Stays for Option<FileContent> {
    fn stays(&self) -> bool {
        self.is_some()
    }
}

fn file(value: &Value<'_>) -> Result<FileContent, ApiError> {
    if value.is_string() {
        return Ok(FileContent { bytes: value.string()?.into_bytes(), mode: DEFAULT_MODE });
    }
    let mut object = value.clone().object()?;
    let bytes = match (object.take("text"), object.take("base64")) {
        (Some(text), None) => text.string()?.into_bytes(),
        (None, Some(coded)) => STANDARD.decode(coded.string()?).map_err(|_| {
            coded.refuse(ErrorCode::InvalidRequest, "must be base64 (RFC 4648 section 4, with padding)")
        })?,
        _ => return Err(value.refuse(ErrorCode::InvalidRequest, "must have either text or base64")),
    };
    let mode = object.take("mode").map_or(Ok(DEFAULT_MODE), |value| mode(&value))?;
    object.finish()?;
    Ok(FileContent { bytes, mode })
}

/// Octal digits in a string. A number is refused: JSON has no octal, and 644 or 420 would each be right for somebody.
fn mode(value: &Value<'_>) -> Result<u32, ApiError> {
    const ALLOWED: &str = "must be permission bits as a string of octal digits, such as \"0644\", 0777 at most";
    let refused = || value.refuse(ErrorCode::InvalidRequest, ALLOWED);
    if !value.is_string() {
        return Err(refused());
    }
    let text = value.string()?;
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|c| matches!(c, b'0'..=b'7'));
    match u32::from_str_radix(&text, 8) {
        Ok(mode) if octal && mode <= 0o777 => Ok(mode),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests;
