rule tables:
    input:
        of_networks_and_runs(),
    output:
        f"{RESULTS}/tables.md",
        report(f"{RESULTS}/tables.csv", caption="../report/tables.rst", category="Tables", labels={"table": "results"}),
        f"{RESULTS}/tables.tex",
        f"{RESULTS}/paper.csv",
        "results/tables.md",
    log:
        f"{LOGS}/tables.log",
    benchmark:
        f"{LOGS}/tables.tsv"
    conda:
        "../envs/odm.yaml"
    resources:
        **resources_of("tables"),
    params:
        card=card_of("tables"),
    shell:
        "odm tables --card {params.card} > {log} 2>&1"


rule figures:
    input:
        of_networks_and_runs(),
        data=TEST_IMAGES,
    output:
        [
            report(
                f"{RESULTS}/figures/{figure}.png",
                caption=f"../report/{figure}.rst",
                category="Figures",
                labels={"figure": figure},
            )
            for figure in FIGURES
        ],
    log:
        f"{LOGS}/figures.log",
    benchmark:
        f"{LOGS}/figures.tsv"
    conda:
        "../envs/odm.yaml"
    threads: SETTINGS.threads
    resources:
        **resources_of("figures"),
    params:
        card=card_of("figures"),
    shell:
        "odm figures --card {params.card} > {log} 2>&1"


rule report:
    input:
        of_networks_and_runs(),
        data=TEST_IMAGES,
    output:
        report(
            f"{RESULTS}/report.html",
            caption="../report/report.rst",
            category="Page",
            labels={"page": "tables, charts, images"},
        ),
    log:
        f"{LOGS}/report.log",
    benchmark:
        f"{LOGS}/report.tsv"
    conda:
        "../envs/odm.yaml"
    threads: SETTINGS.threads
    resources:
        **resources_of("report"),
    params:
        card=card_of("report"),
    shell:
        "odm report --card {params.card} > {log} 2>&1"
