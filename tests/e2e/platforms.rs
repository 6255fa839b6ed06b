//! Images of other platforms: strangers' stacks have no way to the host's emulator, and what is on the host under a name is
//! used only if it is for the platform that was asked for, or the host's.

use bollard::body_full;
use bollard::query_parameters::ImportImageOptions;
use futures::StreamExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::agent::Options;
use crate::support::engine::Engine;
use crate::support::images::{add, busybox_root};
use crate::support::unique;
use crate::tenant::{Tenant, inspect};

/// The engine's architecture, and one that it is not.
fn architectures() -> (&'static str, &'static str) {
    match std::env::consts::ARCH {
        "aarch64" => ("arm64", "amd64"),
        "x86_64" => ("amd64", "arm64"),
        other => panic!("tests know no other architecture than {other}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Busybox that says of itself that it is for this architecture, in the form of `docker save`.
async fn load(engine: &Engine, reference: &str, architecture: &str) {
    let layer = busybox_root(&[]);
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
    });
    let config = config.to_string();
    let named = format!("{}.json", hex(config.as_bytes()));
    let manifest = json!([{"Config": named, "RepoTags": [reference], "Layers": ["layer.tar"]}]).to_string();
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in
        [(named.as_str(), config.as_bytes()), ("layer.tar", &layer), ("manifest.json", manifest.as_bytes())]
    {
        add(&mut archive, tar::EntryType::Regular, path, content, 0o644);
    }
    let archive = archive.into_inner().expect("a tar in memory");
    let docker = engine.docker();
    let options = ImportImageOptions::default();
    let mut answers = std::pin::pin!(docker.import_image(options, body_full(archive.into()), None));
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap_or_else(|error| panic!("the engine does not load {reference}: {error}"));
        assert!(answer.error_detail.is_none(), "the engine does not load {reference}: {answer:?}");
    }
}

fn stack(image: &str, more: &str) -> String {
    format!(
        "services:\n  web:\n    image: {image}\n    command: [sleep, '3600']\n    stop_signal: SIGKILL\n    \
         pull_policy: never\n    {more}\n"
    )
}

#[tokio::test]
async fn an_image_of_another_platform_runs_for_no_stranger() {
    let engine = Engine::shared().with_busybox().await;
    let (own, other) = architectures();
    let foreign = format!("q8test/{}:1", unique("foreign"));
    load(engine, &foreign, other).await;
    let agent = Options::docker(engine).start().await;
    let tenant = Tenant::new(&agent, "platform");
    let provision = async |text: String| agent.post("/v1/tenants/provision", &tenant.body(&text, &Value::Null)).await;

    // Its name is known, but what is there is for another host.
    for more in [String::new(), format!("platform: linux/{own}")] {
        let refused = provision(stack(&foreign, &more)).await.refused(502, "IMAGE_NOT_FOUND");
        assert_eq!(refused["field"], "services.web.image", "{refused}");
        assert!(refused["error"].as_str().expect("text").contains(&format!("linux/{own}")), "{refused}");
    }
    // Asking for the other platform is asking for the emulator.
    for platform in [format!("linux/{other}"), other.to_owned(), "linux/riscv64".to_owned(), "windows".to_owned()] {
        let more = format!("platform: {platform}");
        for image in [foreign.as_str(), "q8test/busybox:1"] {
            let refused = provision(stack(image, &more)).await.refused(422, "POLICY_DENIED");
            assert_eq!(refused["field"], "services.web.platform", "{refused}");
        }
    }
    agent.get(&format!("/v1/tenants/status/{}", tenant.name)).await.refused(404, "NOT_FOUND");
    assert_eq!(engine.left(&format!("dev.q8.tenant={}", tenant.name)).await, Vec::<String>::new());
    // The host's own may be named.
    provision(stack("q8test/busybox:1", &format!("platform: linux/{own}"))).await.expect(201);
    tenant.purge().await;
}

#[tokio::test]
async fn an_operators_own_stack_says_its_platform() {
    let engine = Engine::shared().with_busybox().await;
    let (own, other) = architectures();
    let foreign = format!("q8test/{}:1", unique("foreign"));
    load(engine, &foreign, other).await;
    let agent = Options::docker(engine).env("Q8_AGENT_POLICY", "trusted").start().await;
    let tenant = Tenant::new(&agent, "platform");
    let wrong = tenant.body(&stack("q8test/busybox:1", &format!("platform: linux/{other}")), &Value::Null);
    let refused = agent.post("/v1/tenants/provision", &wrong).await.refused(502, "IMAGE_NOT_FOUND");
    assert!(refused["error"].as_str().expect("text").contains(&format!("linux/{other}")), "{refused}");
    // The image only says that it is for another machine, so that no emulator is needed here.
    tenant.provision(&stack(&foreign, &format!("platform: linux/{other}")), json!({})).await;
    let container = inspect(engine, &tenant.container("web-1").await).await;
    assert_eq!(container["Config"]["Image"], foreign, "{container}");
    assert_ne!(own, other);
    // Without a word what is there is meant, as docker compose does it.
    tenant.update(json!({"compose_content": stack(&foreign, "")})).await.expect(200);
    tenant.purge().await;
}
