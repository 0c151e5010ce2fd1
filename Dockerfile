# The packages that the workflow runs in, in the versions that CI ran with; docs/conda.md has the
# commands. Built and run nowhere yet: it was read and linted alone.
FROM python:3.11-slim

# git: each cell records the commit that it was made with.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY stpm_bench stpm_bench
RUN pip install --no-cache-dir -c constraints.txt .

# Snakemake keeps a cache in the home folder, which a user named with --user does not have.
ENV HOME=/tmp
# The checkout is mounted here, with its data, its results and Snakemake's records.
WORKDIR /work
CMD ["snakemake", "--cores", "all"]
