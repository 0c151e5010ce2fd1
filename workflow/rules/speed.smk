# The methods' frames per second, compared on one machine. Only for a config that compares SPADE
# with STPM, as the paper's claim of speed does; otherwise there is nothing to make. Models that are
# not kept remain until this is done, since they are its input.
from stpm_bench import speed

TIMED = speed.timed_cells(CONFIG, MAIN_STUDY)
SPEED = [f"{RESULTS}/speed.csv"] if TIMED else []


if TIMED:

    rule speed:
        input:
            images=f"{RESULTS}/prepared/{TIMED[0].category}/test/images.npy",
            teacher=teacher_of(TIMED[0]),
            models=[f"{SUITE.fit_folder(cell)}/model.pt" for cell in TIMED],
        output:
            table=f"{RESULTS}/speed.csv",
            record=f"{RESULTS}/speed.json",
        log:
            f"{RESULTS}/logs/speed.log",
        conda:
            "../../environment.yml"
        # All cores: no other job of this run runs at the same time. (On a cluster, a whole node.)
        threads: CORES
        resources:
            gpu=1,
            mem_mb=with_suite(resources.speed_memory, cells=TIMED),
            runtime=60,
        params:
            code=[
                version_of("speed"),
                *(version_of("score", SUITE.methods[cell.method].module) for cell in TIMED),
            ],
            timed=json.dumps(speed.step_input(TIMED, SUITE.methods)),
            device=CONFIG["device"],
            test=subpath(input.images, parent=True),
            results=subpath(output.table, parent=True),
        shell:
            "python -m stpm_bench speed --results {params.results:q} --test {params.test:q}"
            " --teacher {input.teacher:q} --timed {params.timed:q} --device {params.device} --threads {threads} --log {log:q}"
