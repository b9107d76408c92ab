# The page, `colorized web`:
#
#   docker build -t colorized .
#   docker run --rm -p 8000:8000 -e COLORIZED_TOKEN=… --read-only --tmpfs /tmp colorized
#
# On Linux pip takes PyTorch's CUDA build, several GB. For the CPU build give the address of the CPU
# index that PyTorch's installation page names: --build-arg PIP_EXTRA_INDEX_URL=…
FROM python:3.13-slim AS build
ARG PIP_EXTRA_INDEX_URL=
WORKDIR /src
RUN python -m venv /opt/colorized
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY colorized colorized
COPY models/released models/released
COPY data/sample data/sample
RUN /opt/colorized/bin/pip install --no-cache-dir --constraint constraints.txt '.[web]'

FROM python:3.13-slim
COPY --from=build /opt/colorized /opt/colorized
ENV PATH=/opt/colorized/bin:$PATH
USER 1000:1000
WORKDIR /tmp
EXPOSE 8000
# The token comes from the environment of `docker run`, and is in no layer.
ENTRYPOINT ["colorized"]
CMD ["web", "--host", "0.0.0.0"]
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz')"]
