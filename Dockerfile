# An image of degla for Kubernetes or Docker work pools (docs/prefect.md), in two variants:
#   docker build -t degla:cpu --build-arg PIP_EXTRA_INDEX_URL=<PyTorch's index of CPU wheels> .
#   docker build -t degla:gpu --build-arg BUILD=gpu .
# The GPU variant brings CUDA's libraries as Python packages; the host brings the driver (nvidia-container-toolkit).
FROM python:3.11-slim

# g++: torch.compile and Triton compile at run time; libnuma: vLLM's CPU build loads it; tini: signals and orphans.
RUN apt-get update && apt-get install -y --no-install-recommends g++ libnuma1 tini && rm -rf /var/lib/apt/lists/*

ARG BUILD=cpu
ARG PIP_EXTRA_INDEX_URL
WORKDIR /opt/degla
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY scripts/fix_torchvision.py scripts/
# Before the code, so that a changed line does not install everything again. As `make env` does: torchaudio and
# torchcodec do not load beside a CPU torch, and nothing here needs them.
RUN mkdir degla pipeline stages flows \
    && touch degla/__init__.py pipeline/__init__.py stages/__init__.py flows/__init__.py \
    && pip install --no-cache-dir -c constraints.txt -e ".[$BUILD]" \
    && if [ "$BUILD" = cpu ]; then pip uninstall -y torchaudio torchcodec; fi \
    && python scripts/fix_torchvision.py
COPY degla degla
COPY pipeline pipeline
COPY stages stages
COPY flows flows
COPY data data
COPY prefect.yaml prefect.toml ./

# Any user may run it: what lasts goes to /runs, anything else to /tmp.
RUN mkdir -m 1777 /runs
ENV DEGLA_HOME=/runs HF_HOME=/runs/huggingface PREFECT_HOME=/tmp/prefect HOME=/tmp USER=degla DO_NOT_TRACK=1
VOLUME /runs
USER 1000:1000
# Prefect's workers give their command as arguments and keep the entry point.
ENTRYPOINT ["tini", "--"]
CMD ["degla", "doctor"]
