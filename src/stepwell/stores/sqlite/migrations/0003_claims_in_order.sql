-- Runs that are due at the same time are claimed in the order in which they were created.

DROP INDEX runs_due;
-- Claims: for one owner (NULL: nobody) and one priority, what is due is a range of this index.
CREATE INDEX runs_due ON runs (owner, priority, due, n, workflow)
    WHERE due IS NOT NULL AND status IN ('queued', 'running', 'waiting');
