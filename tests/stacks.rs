//! Stacks as tenants bring them come up whole: databases before what needs them, by healthchecks that check something;
//! the same request again changes nothing, and a purge leaves nothing.
//!
//! The Compose files are those of the corpus. Their images are stand-ins, and their ports are the agent's to choose.

mod support;
#[path = "e2e/tenant.rs"]
#[allow(dead_code, reason = "the other end-to-end tests use more of it")]
mod tenant;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::agent::{Agent, Options};
use support::engine::Engine;
use support::stacks::Stack;
use tenant::{Tenant, inspect, page};

const N8N: Stack = Stack {
    file: "02-n8n-postgres",
    images: &[
        ("docker.n8n.io/n8nio/n8n:latest", r#"ENTRYPOINT ["n8n"]"#),
        ("postgres:16", r#"CMD ["postgres"]"#),
        ("redis:6-alpine", r#"CMD ["redis-server"]"#),
    ],
    ports: &[("127.0.0.1:${N8N_PORT:-5678}:5678", "127.0.0.1::5678")],
    files: &[("init-data.sh", "account \"$POSTGRES_NON_ROOT_USER\" \"$POSTGRES_NON_ROOT_PASSWORD\"\n")],
    profiles: &[],
};

const GHOST: Stack = Stack {
    file: "03-ghost-mysql",
    images: &[("ghost:5-alpine", r#"CMD ["ghost"]"#), ("mysql:8.0", r#"CMD ["mysqld"]"#)],
    ports: &[],
    files: &[],
    profiles: &[],
};

const GITEA: Stack = Stack {
    file: "04-gitea-postgres",
    images: &[("gitea/gitea:1.22", r#"CMD ["gitea"]"#), ("postgres:14", r#"CMD ["postgres"]"#)],
    ports: &[("3000:3000", "3000"), ("222:22", "22")],
    files: &[("secrets/db_password.txt", "s3cretOfGitea")],
    profiles: &[],
};

const NEXTCLOUD: Stack = Stack {
    file: "05-nextcloud-full",
    images: &[
        ("mariadb:10.11", r#"ENTRYPOINT ["mariadbd"]"#),
        ("redis:alpine", r#"CMD ["redis-server"]"#),
        ("nextcloud:fpm-alpine", r#"CMD ["php-fpm"]"#),
        ("nginx:alpine", r#"CMD ["nginx"]"#),
        ("collabora/code:latest", r#"CMD ["coolwsd"]"#),
    ],
    ports: &[],
    files: &[
        (
            "db.env",
            "MYSQL_ROOT_PASSWORD=root\nMYSQL_PASSWORD='nc$pw'\nMYSQL_DATABASE=nextcloud\nMYSQL_USER=nextcloud\n\
             REDIS_HOST_PASSWORD=r\n",
        ),
        ("nginx.conf", "http {\n  upstream php-handler {\n    server app:9000;\n  }\n}\n"),
    ],
    profiles: &["office"],
};

const SUPABASE: Stack = Stack {
    file: "10-supabase-like",
    images: &[
        ("kong:2.8.1", "ENV HOME=/home/kong"),
        ("supabase/gotrue:v2.151.0", r#"CMD ["auth"]"#),
        ("postgrest/postgrest:v12.0.1", r#"CMD ["postgrest"]"#),
        ("supabase/realtime:v2.28.32", r#"CMD ["/app/bin/server"]"#),
        ("supabase/logflare:1.4.0", r#"CMD ["logflare"]"#),
        ("supabase/postgres:15.1.1.78", r#"CMD ["postgres"]"#),
    ],
    ports: &[("${KONG_HTTP_PORT:-8000}:8000/tcp", "8000/tcp"), ("${KONG_HTTPS_PORT:-8443}:8443/tcp", "8443/tcp")],
    files: &[
        ("volumes/api/kong.yml", "consumers:\n  - key: $SUPABASE_ANON_KEY\n"),
        ("volumes/db/init.sql", "CREATE ROLE supabase_auth_admin;\nCREATE ROLE authenticator;\n"),
    ],
    profiles: &[],
};

async fn agent(stack: &Stack) -> Agent<'static> {
    let engine = Engine::shared().with_stand_ins(stack).await;
    // What these stacks need beyond what every tenant may have: the office of one makes device files.
    Options::docker(engine).policy("profile = 'baseline'\n[grants]\ncapabilities = ['MKNOD']\n").start().await
}

/// State of each service.
fn states(services: &Value) -> BTreeMap<&str, &str> {
    let services = services.as_array().expect("a list of services");
    services
        .iter()
        .map(|service| (service["name"].as_str().expect("a name"), service["state"].as_str().expect("a state")))
        .collect()
}

/// Provisions the stack: every service must come to its state.
async fn comes_up(body: &Value, tenant: &Tenant<'_>, agent: &Agent<'_>, wanted: &[(&str, &str)]) {
    let made = agent.post("/v1/tenants/provision", body).await.expect(201);
    let wanted: BTreeMap<&str, &str> = wanted.iter().copied().collect();
    assert_eq!(states(&made["services"]), wanted, "{made}");
    let status = tenant.status().await;
    assert_eq!((&status["state"], states(&status["services"])), (&json!("running"), wanted), "{status}");
}

/// Whether the engine knows `healthcheck.start_interval`: from Engine 25 on.
async fn starts_checks_early() -> bool {
    let version = Engine::shared().docker().version().await.expect("the engine answers").api_version;
    let version = version.expect("an API version");
    let minor = version.strip_prefix("1.").and_then(|minor| minor.parse::<u32>().ok());
    minor.unwrap_or_else(|| panic!("API version {version}")) >= 44
}

/// The engine's time of a container's start, and of its first successful healthcheck.
async fn times(tenant: &Tenant<'_>, container: &str) -> (jiff::Timestamp, Option<jiff::Timestamp>) {
    let state = &inspect(Engine::shared(), &tenant.container(container).await).await["State"];
    let time = |text: &Value| text.as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time");
    let checks = state["Health"]["Log"].as_array().into_iter().flatten();
    let healthy = checks.filter(|check| check["ExitCode"] == 0).map(|check| time(&check["End"])).min();
    (time(&state["StartedAt"]), healthy)
}

/// Each container of the chain was started after the one before it was started, or was healthy if that is checked.
async fn started_in_order(tenant: &Tenant<'_>, chain: &[&str]) {
    let mut before = jiff::Timestamp::MIN;
    for container in chain {
        let (started, healthy) = times(tenant, container).await;
        assert!(started > before, "{container} was started at {started}, what it waits for was there at {before}");
        before = healthy.unwrap_or(started);
    }
}

/// The same request again is answered at once and leaves every container alone; a purge leaves nothing at all.
async fn stays_and_goes(body: &Value, tenant: &Tenant<'_>, agent: &Agent<'_>) {
    let before = tenant.containers().await;
    let mut took = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let again = agent.post("/v1/tenants/provision", body).await.expect(200);
        took.push(start.elapsed());
        assert_eq!((&again["changed"], &again["generation"]), (&json!(false), &json!(1)), "{again}");
    }
    // The engine may be busy with others once in a while.
    assert!(took.iter().min() < Some(&Duration::from_secs(2)), "nothing to do took {took:?}");
    assert_eq!(tenant.containers().await, before);
    tenant.purge().await;
    assert_eq!(Engine::shared().left(&agent.label()).await, Vec::<String>::new());
}

#[tokio::test]
async fn n8n_with_postgres_redis_and_two_workers() {
    let agent = agent(&N8N).await;
    let tenant = Tenant::new(&agent, "n8n");
    let body = N8N.request(&tenant.name, &tenant.id);
    let wanted = [("n8n", "running"), ("n8n-worker", "running"), ("postgres", "healthy"), ("redis", "healthy")];
    comes_up(&body, &tenant, &agent, &wanted).await;
    started_in_order(&tenant, &["postgres-1", "n8n-1", "n8n-worker-2"]).await;
    started_in_order(&tenant, &["redis-1", "n8n-1", "n8n-worker-1"]).await;
    // The account of the init script, which a bind of a request file brought in.
    assert!(tenant.said("postgres").await.contains(&"ready with 2 accounts".to_owned()));
    assert_eq!(page(tenant.endpoint("n8n").await, "/health").await.text(), "healthy\n");
    stays_and_goes(&body, &tenant, &agent).await;
}

#[tokio::test]
async fn ghost_with_mysql() {
    let agent = agent(&GHOST).await;
    let tenant = Tenant::new(&agent, "ghost");
    let body = GHOST.request(&tenant.name, &tenant.id);
    comes_up(&body, &tenant, &agent, &[("db", "running"), ("ghost", "running")]).await;
    started_in_order(&tenant, &["db-1", "ghost-1"]).await;
    let url = format!("https://{}.example.com\n", tenant.name);
    let endpoint = tenant.endpoint("ghost").await;
    tenant.says("db", "ready with 1 accounts").await;
    let served = support::eventually("ghost serves", tenant::PATIENCE, async || {
        Some(page(endpoint, "/url").await).filter(|answer| answer.status == 200)
    });
    assert_eq!(served.await.text(), url);
    stays_and_goes(&body, &tenant, &agent).await;
}

#[tokio::test]
async fn gitea_with_postgres_and_a_secret() {
    let agent = agent(&GITEA).await;
    let tenant = Tenant::new(&agent, "gitea");
    let body = GITEA.request(&tenant.name, &tenant.id);
    comes_up(&body, &tenant, &agent, &[("db", "healthy"), ("server", "running")]).await;
    // Nothing that is asked for is left out without a word.
    let again = agent.post("/v1/tenants/provision", &body).await.expect(200);
    let told = again["warnings"].to_string().contains("services.db.healthcheck.start_interval");
    assert_eq!(told, !starts_checks_early().await, "{again}");
    // `container_name: ${COMPOSE_PROJECT_NAME}-gitea` is an alias.
    started_in_order(&tenant, &["db-1", "server-1"]).await;
    stays_and_goes(&body, &tenant, &agent).await;
}

#[tokio::test]
async fn nextcloud_with_its_office() {
    let agent = agent(&NEXTCLOUD).await;
    let tenant = Tenant::new(&agent, "cloud");
    let body = NEXTCLOUD.request(&tenant.name, &tenant.id);
    let names = ["app", "collabora", "cron", "db", "redis", "web"];
    comes_up(&body, &tenant, &agent, &names.map(|name| (name, "running"))).await;
    started_in_order(&tenant, &["db-1", "app-1", "web-1"]).await;
    started_in_order(&tenant, &["redis-1", "cron-1"]).await;
    // One volume in three services, read-only in one, and the application's page in it.
    let page = format!("Nextcloud at {}.example.com", tenant.name);
    tenant.says("cron", &format!("cron sees {page}")).await;
    tenant.says("web", &format!("nginx sees {page}")).await;
    stays_and_goes(&body, &tenant, &agent).await;
}

#[tokio::test]
async fn a_stack_like_supabase() {
    let agent = agent(&SUPABASE).await;
    let tenant = Tenant::new(&agent, "supa");
    let body = SUPABASE.request(&tenant.name, &tenant.id);
    let wanted = [
        ("analytics", "healthy"),
        ("auth", "healthy"),
        ("db", "healthy"),
        ("kong", "running"),
        ("realtime", "running"),
        ("rest", "running"),
    ];
    comes_up(&body, &tenant, &agent, &wanted).await;
    started_in_order(&tenant, &["db-1", "analytics-1", "kong-1"]).await;
    started_in_order(&tenant, &["db-1", "analytics-1", "auth-1"]).await;
    started_in_order(&tenant, &["db-1", "rest-1"]).await;
    started_in_order(&tenant, &["db-1", "realtime-1"]).await;
    stays_and_goes(&body, &tenant, &agent).await;
}
