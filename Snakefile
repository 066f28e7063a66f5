# Here and not in workflow/, so that the bare `snakemake --cores 8 all` finds profiles/default beside it.
include: "workflow/Snakefile"


rule all:
    input:
        everything(),
