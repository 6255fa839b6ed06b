# The agent's image: one static binary on scratch.
#
#   docker build -t q8-agent .                              builds the binary, too
#   docker build -t q8-agent --target prebuilt CONTEXT      takes CONTEXT/q8-agent (and CONTEXT/Dockerfile); needs no registry
#
# It runs as it would without a container: on the host's network, with the engine's socket, and with the tenants root under the
# same path inside and outside, because the engine resolves bind mounts outside.
#
#   docker run -d --name q8-agent --restart unless-stopped --stop-timeout 40 --network host --read-only \
#     --cap-drop ALL --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER --security-opt no-new-privileges \
#     -v /var/run/docker.sock:/var/run/docker.sock -v /opt/tenants:/opt/tenants \
#     -v /etc/q8-agent:/etc/q8-agent:ro -e Q8_AGENT_ADMIN_TOKEN_FILE=/etc/q8-agent/token q8-agent

FROM scratch AS base
ENV PATH=/
# Otherwise each thread that waits for the disk gets memory of its own to allocate from, and keeps some of it.
ENV MALLOC_ARENA_MAX=2
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/q8-agent", "healthcheck"]
ENTRYPOINT ["/q8-agent"]
CMD ["serve"]

# The classic builder runs every stage up to the wanted one. So this one stands before the build, and takes what is there: the
# binary, or in a context to build from, where a COPY that finds nothing would fail, a file that nobody needs.
FROM base AS prebuilt
COPY q8-agen[t] Cargo.tom[l] /

FROM rust:1.95 AS build
WORKDIR /src
COPY . .
# .cargo/config.toml makes it static.
RUN cargo build --locked --release && cp target/*/release/q8-agent /q8-agent

FROM base AS runtime
COPY --from=build /q8-agent /q8-agent
