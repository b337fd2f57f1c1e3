# The image of Python workers with melmill, for Flink and for Dataflow:
#   docker build -f deploy/worker.Dockerfile -t melmill-worker:0.1.0 .
# The Beam version must be the launcher's (`pip show apache-beam`), because setup.py allows several.
FROM apache/beam_python3.11_sdk:2.77.0
COPY setup.py pyproject.toml README.md LICENSE /opt/melmill/
COPY melmill /opt/melmill/melmill
COPY configs /opt/melmill/configs
COPY pipelines /opt/melmill/pipelines
COPY transforms /opt/melmill/transforms
RUN pip install --no-cache-dir "/opt/melmill[s3,gcs,azure]"
# One thread for each process, because every core has its own process.
ENV OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
