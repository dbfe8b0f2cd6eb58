# The daemon's image: built in one stage, run as an ordinary user in another.
FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential pkg-config libssl-dev zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --profile dist --locked --bin tributary

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libssl3 zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/tributary --create-home tributary
COPY --from=build /src/target/dist/tributary /usr/local/bin/tributary
USER 10001
WORKDIR /var/lib/tributary
VOLUME /var/lib/tributary
# The config is mounted at /etc/tributary; set `data_dir = "/var/lib/tributary"` there.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD ["tributary", "health", "--url", "http://127.0.0.1:8080"]
ENTRYPOINT ["tributary"]
CMD ["serve", "--config", "/etc/tributary"]
