"""How workers come and go: what a reload waits for, when a worker is replaced, and what is done about crashes."""

from __future__ import annotations

from bicorn.config.setting import Options, Setting
from bicorn.config.values import COUNT, SECONDS, choice


class LifecycleOptions(Options, section="Life of Workers", ours=True):
    """Settings of the life of workers."""

    reload_mode = Setting(
        default="all",
        kind=choice("all", "rolling"),
        cli=("--reload-mode",),
        precedent="Gunicorn starts all new workers at once; Puma's phased restart is rolling",
        doc="How a reload (HUP) replaces workers once the first new one is ready. all: the others boot together, and "
        "the old ones drain when every new one is ready. rolling: one by one, with never more than one process more "
        "than there are workers, which costs less memory and more time.",
    )
    boot_timeout = Setting(
        default=0,
        kind=SECONDS,
        cli=("--boot-timeout",),
        unit="seconds",
        precedent="Gunicorn has only timeout for it, Kubernetes a startupProbe",
        doc="How long a worker may take from its fork until it accepts; then it is aborted, its stack is logged, and a "
        "reload that waited for it has failed. 0 means that timeout holds for the boot as well.",
    )
    on_boot_failure = Setting(
        default="exit",
        kind=choice("exit", "retry"),
        cli=("--on-boot-failure",),
        precedent="Gunicorn exits",
        doc="What happens when the first workers cannot load the application. exit: the server ends with 3 or 4, as "
        "Gunicorn does. retry: workers are started again, with growing delays, until one succeeds.",
    )
    respawn_delay_max = Setting(
        default=30,
        kind=SECONDS,
        cli=("--respawn-delay-max",),
        unit="seconds",
        precedent="Kubernetes' CrashLoopBackOff ends at 300; half a minute is what a person at a terminal waits for",
        doc="The longest delay between workers that die at once. The first is replaced without any, the next after "
        "0.5 seconds, then the delay doubles.",
    )
    max_worker_memory = Setting(
        default=0,
        kind=COUNT,
        cli=("--max-worker-memory",),
        unit="bytes",
        precedent="uWSGI reload-on-rss",
        doc="A worker whose memory exceeds this is replaced: its successor is ready before it drains. Its proportional "
        "set size counts, so that what workers share is not counted by each. A limit below what a worker takes when it "
        "becomes ready replaces none, and is warned of. 0 means no limit.",
    )
    worker_memory_interval = Setting(
        default=5,
        kind=SECONDS,
        cli=("--worker-memory-interval",),
        unit="seconds",
        precedent="pm2 30",
        doc="How often the arbiter looks at the memory of the workers while max_worker_memory is set. Requests do not "
        "notice.",
    )
    max_worker_lifetime = Setting(
        default=0,
        kind=SECONDS,
        cli=("--max-worker-lifetime",),
        unit="seconds",
        precedent="uWSGI max-worker-lifetime",
        doc="A worker that has been ready for so long is replaced: its successor is ready before it drains. 0 means "
        "never.",
    )
    max_worker_lifetime_jitter = Setting(
        default=0,
        kind=SECONDS,
        cli=("--max-worker-lifetime-jitter",),
        unit="seconds",
        precedent="max_requests_jitter",
        doc="The most that is added to max_worker_lifetime, at random for each worker, so that not all are due at "
        "once. Even then at most a quarter of them are replaced at a time.",
    )
    workers_min = Setting(
        default=0,
        kind=COUNT,
        cli=("--workers-min",),
        unit="processes",
        precedent="uWSGI cheaper",
        doc="The fewest workers while workers_max is set. 0 means one.",
    )
    workers_max = Setting(
        default=0,
        kind=COUNT,
        cli=("--workers-max",),
        unit="processes",
        precedent="uWSGI workers with cheaper, php-fpm pm.max_children",
        doc="The most workers that the load may ask for: between workers_min and this, workers are added while "
        "requests wait or 80 % of the workers are busy, and taken away while the rest would be less than 60 % busy. "
        "The server starts with `workers`, or what is nearest within the bounds. 0 means that the number does "
        "not change.",
    )
    scale_up_after = Setting(
        default=3,
        kind=SECONDS,
        cli=("--scale-up-after",),
        unit="seconds",
        precedent="longer than a burst, shorter than a user's patience",
        doc="How long requests have to have waited before workers are added: a quarter of those there are, at "
        "least one.",
    )
    scale_down_after = Setting(
        default=60,
        kind=SECONDS,
        cli=("--scale-down-after",),
        unit="seconds",
        precedent="Kubernetes' autoscaler 300; a worker boots faster than a pod",
        doc="How long a worker has to have been superfluous before it is drained; then the next one is looked at.",
    )
    refork = Setting(
        default=0,
        kind=COUNT,
        cli=("--refork",),
        unit="requests",
        precedent="Pitchfork refork_after",
        doc="When a worker has served so many requests, it drains, and new workers are forked from it: they share what "
        "it has loaded and cached. Its siblings are replaced one by one. The application has to bear a fork, as with "
        "preload_app. Requests are counted by the worker classes sync, gthread, gevent, eventlet and asgi; workers of "
        "other classes are never chosen. 0 means never.",
    )
    upgrade_timeout = Setting(
        default=60,
        kind=SECONDS,
        cli=("--upgrade-timeout",),
        unit="seconds",
        precedent="twice the default timeout: the time to start Python, and to boot all workers",
        doc="How long the new arbiter of an automatic upgrade (bicornctl upgrade) may take until its workers are "
        "ready; then it is told to stop, and the old one serves on.",
    )
    gc_out_of_band = Setting(
        default=0,
        kind=COUNT,
        cli=("--gc-out-of-band",),
        unit="requests",
        precedent="Unicorn's OobGC 5, Pitchfork off",
        doc="Turns automatic garbage collection off in sync and gthread workers: they collect after so many requests, "
        "when an answer has been sent, and freeze what the application has loaded. 0 leaves it to the interpreter.",
    )
