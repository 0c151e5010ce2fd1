# The methods' frames a second, side by side: of a config that sets SPADE beside STPM, which the
# paper's claim of speed is about, else there is nothing to make. Models that are not kept wait for
# it, since they are its input.
from stpm_bench import speed

TIMED = speed.cells(CONFIG, MAIN)
SPEED = [f"{RESULTS}/speed.csv"] if TIMED else []


def speed_memory(wildcards, attempt):
    """Return the MB of what scores with the models of all methods at once: at most what fits them.

    Students are left out: their weights are a few MB.
    """
    images = count_images(TIMED[0].category, "train") * TIMED[0].fraction
    backbone = CONFIG["teachers"][TIMED[0].teacher]["backbone"]
    fitted = [METHODS[cell.method] for cell in TIMED if not METHODS[cell.method].networks()]
    return memory(sum(settings.memory_mb(backbone, images) for settings in fitted), attempt)


if TIMED:

    rule speed:
        input:
            # Only their existence counts: another study in the config is no other speed.
            config=ancient(f"{RESULTS}/config.yaml"),
            studies=ancient(f"{RESULTS}/studies.csv"),
            images=f"{RESULTS}/prepared/{TIMED[0].category}/test/images.npy",
            teacher=teacher_of(TIMED[0]),
            models=[f"{FIT_OF[cell]}/model.pt" for cell in TIMED],
        output:
            table=f"{RESULTS}/speed.csv",
            record=f"{RESULTS}/speed.json",
        log:
            f"{RESULTS}/logs/speed.log",
        conda:
            "../../environment.yml"
        # All cores: no other job runs beside it, so that nothing else slows what is timed. On a
        # cluster a node of its own.
        threads: CORES
        resources:
            gpu=1,
            mem_mb=speed_memory,
            runtime=60,
        params:
            code=[
                version_of("speed"),
                *(version_of("score", METHODS[cell.method].module) for cell in TIMED),
            ],
            fits=[Path(FIT_OF[cell]).name for cell in TIMED],
            evaluation=lambda wildcards: [METHODS[cell.method].evaluation_part() for cell in TIMED],
            device=CONFIG["device"],
            study=MAIN,
            results=subpath(output.table, parent=True),
        shell:
            "python -m stpm_bench speed --results {params.results:q} --main {params.study}"
            " --device {params.device} --threads {threads} --log {log:q}"
