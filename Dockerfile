# Two small images from one build: `--target ingress` and `--target worker`. Neither has a shell or runs as root, so each
# carries wxpayctl, which asks for its health and does what a person does.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p wxpay-ingress -p wxpay-worker -p wxpayctl \
    && mkdir /empty

FROM gcr.io/distroless/cc-debian12:nonroot AS ingress
COPY --from=build /src/target/release/wxpay-ingress /src/target/release/wxpayctl /usr/local/bin/
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["wxpayctl", "healthcheck", "ingress"]
ENTRYPOINT ["wxpay-ingress"]

FROM gcr.io/distroless/cc-debian12:nonroot AS worker
COPY --from=build /src/target/release/wxpay-worker /src/target/release/wxpayctl /usr/local/bin/
# A volume that is mounted here starts with this owner.
COPY --from=build --chown=nonroot:nonroot /empty /var/lib/wxpay
EXPOSE 8082
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD ["wxpayctl", "healthcheck", "worker"]
ENTRYPOINT ["wxpay-worker"]
