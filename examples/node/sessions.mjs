import { createHash } from 'node:crypto'

const id = (token) => createHash('sha256').update(token).digest('base64url')

export const sessions = (pool) => ({
  // { value, subject, version }, or null
  async get(token) {
    const { rows: [r] } = await pool.query(
      'select status, data, subject, version from pgsession.session_get($1)', [id(token)])
    if (r.status !== 'found') return null
    return { value: r.data.length ? JSON.parse(r.data) : {}, subject: r.subject, version: r.version }
  },
  // Takes what get returned: all of it is written, and without its subject the session is nobody's. With a version
  // 'conflict': somebody else changed it since; without one the last save wins. idle: seconds; null: as before.
  // Returns 'created', 'updated', 'touched', 'unchanged'; 'missing', 'revoked': it has ended meanwhile
  async set(token, { value, subject = null, version = 0 }, idle = null) {
    const { rows: [r] } = await pool.query(
      `select status from pgsession.session_set($1, $2, p_codec => 1, p_subject => $3, p_version => $4, p_idle_timeout => $5)`,
      [id(token), Buffer.from(JSON.stringify(value)), subject, version, idle])
    return r.status
  },
  async touch(token) {
    for (let at = id(token); ;) {
      const { rows: [r] } = await pool.query('select status, renewed_to from pgsession.session_touch($1)', [at])
      if (r.status !== 'renewed' || !r.renewed_to) return r.status
      at = r.renewed_to
    }
  },
  async destroy(token) {
    for (const successors = []; ;) {
      const { rows } = await pool.query('select successor from pgsession.session_destroy($1, p_successors => $2)',
        [JSON.stringify([id(token)]), JSON.stringify(successors)])
      const more = rows.flatMap((r) => r.successor ?? [])
      if (more.length === 0) return
      successors.push(...more)
    }
  },
})
