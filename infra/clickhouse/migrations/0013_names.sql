-- What the ids in rows are called, as it stands now. A view and no dictionary: the embedded engine loads a dictionary once and
-- never again (measured), and a server's is as old as its LIFETIME; there are some thousand keys, and a join costs nothing.
CREATE VIEW IF NOT EXISTS sluice.keys AS
SELECT
    JSONExtractString(document, 'id')          AS key_id,
    JSONExtractString(document, 'name')        AS name,
    JSONExtractString(document, 'team')        AS team,
    JSONExtractString(document, 'project')     AS project,
    JSONExtractString(document, 'environment') AS environment,
    JSONExtractString(document, 'user')        AS user,
    deleted
FROM
(
    SELECT
        argMax(if(after = '', before, after), (ts, event_id)) AS document,
        argMax(after = '', (ts, event_id))                    AS deleted
    FROM sluice.changes_log
    WHERE kind = 'key' AND (after != '' OR before != '')
    GROUP BY resource
);
