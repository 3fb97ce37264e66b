# The command `mcast` alone: `docker build -t mcast . && docker run --rm --network host mcast interfaces`.
FROM python:3.13-alpine AS build
# hadolint ignore=DL3018
RUN apk add --no-cache gcc linux-headers musl-dev
COPY . /sources
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /sources

FROM python:3.13-alpine
# As root, because the doctor's checks of the firewall and of packets on the wire need capabilities; the rest does not.
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-compile --no-index /wheels/*.whl
ENTRYPOINT ["mcast"]
