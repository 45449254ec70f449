# The image for those who build with a container engine; `make image` makes it without one, and is what the tests look at.
#
#     docker build --tag zerobridge.io/zerobridge:0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" .
FROM rust:1.95.0-trixie AS build
WORKDIR /zerobridge
COPY . .
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
RUN --mount=type=cache,target=/usr/local/cargo/registry make build \
 && cargo run --quiet -p zerobridge-image -- --programs target/x86_64-unknown-linux-gnu/release --out /out --root /image \
        --revision "$REVISION" --created "$CREATED"

FROM scratch
ARG REVISION=unknown
COPY --from=build /image /
LABEL org.opencontainers.image.title="zerobridge" \
      org.opencontainers.image.description="SR-IOV VFs as Kubernetes pods' own interfaces: device plugin, CNI plugin, IPAM plugin" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="$REVISION"
ENV PATH=/bin
ENTRYPOINT ["/bin/zerobridge-device-plugin"]
