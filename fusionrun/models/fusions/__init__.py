"""One file for each fusion type; `fusionrun.schema.fusions` says which class carries out which."""
