"""The steps: one plain function for each rule, files in, files out.

`python -m stpm_bench STEP --help` lists a step's parameters as options. The modules that compute
are imported inside the step, so that `--help` and the light steps do not wait for torch.
"""

from stpm_bench.steps import data, evaluate, fit, predict, report, run, speed

STEPS = (
    run.plan,
    report.studies,
    data.demo_data,
    data.download,
    data.check_data,
    data.prepare,
    data.pretraining_set,
    fit.teacher,
    fit.fit,
    fit.score,
    predict.predict,
    evaluate.evaluate,
    evaluate.collect,
    evaluate.export_maps,
    speed.speed,
    report.tables,
    report.claims,
    report.figures,
    report.interim,
    report.panel,
    report.explorer,
    report.first_page,
    report.failures,
    report.notebook,
    run.clean,
    run.config_docs,
    run.publish,
    run.compare,
    run.readme,
    run.benchmark,
    run.benchmark_docs,
)
