from sdpo_lab.experiments.sweeps import main

main()
