# The service in a container: make release (or uv build), make export, then
#   docker build --tag mmib . && docker run --publish 8000:8000 mmib
FROM python:3.11-slim
WORKDIR /srv/mmib
COPY constraints.txt dist/mmib-*.whl ./
RUN python -m venv venv
RUN venv/bin/pip install --no-cache-dir --constraint constraints.txt "$(echo mmib-*.whl)[serve]"
COPY exports exports
RUN useradd --system --no-create-home mmib
USER mmib
ENV HF_HUB_OFFLINE=1 OMP_NUM_THREADS=2
EXPOSE 8000
HEALTHCHECK CMD ["venv/bin/python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/api/live')"]
CMD ["venv/bin/mmib", "serve", "--model", "exports", "--host", "0.0.0.0", "--log", "json"]
