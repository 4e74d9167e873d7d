import { createHash } from 'node:crypto'

const id = (token) => createHash('sha256').update(token).digest('base64url')

export const sessions = (pool) => ({
  async get(token) {
    const { rows: [r] } = await pool.query('select status, data from pgsession.session_get($1)', [id(token)])
    return r.status === 'found' ? JSON.parse(r.data) : null
  },
  // idle: seconds; null: as before. Returns 'created', 'updated', 'touched', 'unchanged'; 'revoked': it has ended meanwhile
  async set(token, value, idle = null) {
    const { rows: [r] } = await pool.query(
      'select status from pgsession.session_set($1, $2, p_codec => 1, p_idle_timeout => $3)',
      [id(token), Buffer.from(JSON.stringify(value)), idle])
    return r.status
  },
  touch: (token) => pool.query('select status from pgsession.session_touch($1)', [id(token)]),
  destroy: (token) => pool.query('select id from pgsession.session_destroy($1)', [JSON.stringify([id(token)])]),
})
