# The service in a container. The bundle is not in the image: it is mounted at /bundle, and only read.
#
#     docker build -t twotower .
#     docker run --rm -p 8000:8000 -v "$PWD/bundles/quickstart:/bundle:ro" twotower
#
# What is known of this file: hadolint finds nothing, its RUN steps were run in an empty virtual environment and its CMD
# answered there. No image was built from it where it was written.
FROM python:3.12-slim-bookworm

ARG TORCH_VERSION=2.13.0
ENV OMP_NUM_THREADS=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

WORKDIR /app
RUN useradd --uid 10001 --no-log-init --no-create-home --shell /usr/sbin/nologin twotower

# As in the Makefile: PyTorch's CPU build, or the default one where its index does not answer.
RUN pip install --no-deps --retries=0 --timeout=15 --index-url=https://download.pytorch.org/whl/cpu \
        torch==${TORCH_VERSION} \
    || pip install torch==${TORCH_VERSION}

COPY requirements-serving.lock ./
RUN pip install --no-deps --require-hashes -r requirements-serving.lock

COPY pyproject.toml README.md LICENSE ./
COPY datasets/toy.csv datasets/
COPY twotower_lib twotower_lib
RUN pip install --no-deps --no-build-isolation . && pip check

USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=2); c.request('GET', '/readyz'); exit(c.getresponse().status != 200)"]
CMD ["twotower", "serve", "/bundle", "--host", "0.0.0.0", "--port", "8000"]
