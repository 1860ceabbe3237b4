"""How a plan becomes results: which instances exist, what each waits for, who computes it, what is kept of it.

loop         the run's own thread: looks up, asks the scheduler, hands work to devices, keeps what comes back
instances    which instances there are, as lists become known
workload     what the scheduler is told, and what was measured
settle       the books: found, computed, failed, skipped; what was lost is computed again
keep         fetches inputs, checks, digests and stores outputs
values       the values at hand;  lifetimes: until when each is needed
recording    from all that to the record of the run
"""
