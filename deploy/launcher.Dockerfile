# The image of the launcher: `melmill` on one machine, in a schedule, or to submit jobs to a cluster.
#   docker build -f deploy/launcher.Dockerfile -t melmill-launcher:0.1.0 .
#   docker run --rm --init --user "$(id -u)" -v "$PWD:/data" melmill-launcher:0.1.0 extract songs dataset
# Add extras with --build-arg EXTRAS=s3,gcs,azure,dataflow. `explore`, which `melmill report` needs
# too, adds 120 MB.
# Python and Beam are those of deploy/worker.Dockerfile, because a job needs the same on both sides.
FROM python:3.11-slim
ARG EXTRAS=s3,gcs,azure
COPY setup.py pyproject.toml README.md LICENSE /opt/melmill/
COPY melmill /opt/melmill/melmill
COPY configs /opt/melmill/configs
COPY pipelines /opt/melmill/pipelines
COPY transforms /opt/melmill/transforms
RUN pip install --no-cache-dir apache-beam==2.77.0 "/opt/melmill[${EXTRAS}]"
# Mount your files here, unless they are in an object store. Every user may write.
WORKDIR /data
RUN chmod 1777 /data
# One thread for each process, because every core has its own process. The user has no home and, for
# the names of Dataflow's jobs, only this name.
ENV OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 HOME=/tmp LOGNAME=melmill
USER 10001:10001
ENTRYPOINT ["melmill"]
