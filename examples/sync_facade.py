"""From code that does not await, such as a view of Flask or Django: `app.sync` has the same calls, and waits.

`report` stands for the view. The App is made once, when the module is loaded, and used by all threads.
In three terminals: lineshaft serve · lineshaft worker sync_facade:app · python sync_facade.py
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from lineshaft import App, ResultTimeout, TaskFailed

app = App()


@app.task(queue="reports")
def make_report(customer: str) -> str:
    return f"report for {customer}"


def report(customer: str) -> str:
    """Answer a request: with the report, or with where it will be."""
    handle = app.sync.enqueue(make_report.configure(task_id=f"report/{customer}"), customer=customer)
    try:
        return f"HTTP 200: {handle.result(timeout='10s')}"
    except ResultTimeout:
        return f"HTTP 202: ask again for {handle.task_id}"
    except TaskFailed as failure:
        return f"HTTP 500: {failure.failure_type}"


if __name__ == "__main__":
    with ThreadPoolExecutor(4) as threads:
        for answer in threads.map(report, ["Ada", "Grace", "Edsger"]):
            print(answer)
    app.sync.close()
