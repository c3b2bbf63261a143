# An image of degla for Kubernetes or Docker work pools (docs/prefect.md), in two variants:
#   docker build -t degla:cpu .
#   docker build -t degla:gpu --build-arg BUILD=gpu .
# The GPU variant brings CUDA's libraries as Python packages; the host brings the driver (nvidia-container-toolkit).
FROM python:3.11-slim

ARG BUILD=cpu
# g++: torch.compile and vLLM's CPU build compile at run time; libnuma: the latter loads it.
RUN apt-get update && apt-get install -y --no-install-recommends g++ libnuma1 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/degla
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY pipeline pipeline
COPY stages stages
COPY flows flows
COPY scripts scripts
# As `make env` does: torchaudio and torchcodec do not load beside a CPU torch, and nothing here needs them.
RUN pip install --no-cache-dir -c constraints.txt -e ".[$BUILD]" \
    && if [ "$BUILD" = cpu ]; then pip uninstall -y torchaudio torchcodec; fi \
    && python scripts/fix_torchvision.py
COPY data data
COPY prefect.yaml prefect.toml ./

ENV DEGLA_HOME=/runs PREFECT_HOME=/tmp/prefect DO_NOT_TRACK=1
VOLUME /runs
CMD ["degla", "doctor"]
