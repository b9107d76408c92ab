taskset: failed to execute -m: No such file or directory
