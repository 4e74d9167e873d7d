import { createHash } from 'node:crypto'

const id = (token) => createHash('sha256').update(token).digest('base64url')

export const sessions = (pool) => ({
  async get(token) {
    const { rows: [r] } = await pool.query('select status, data from pgsession.session_get($1)', [id(token)])
    return r.status === 'found' ? JSON.parse(r.data) : null
  },
  async set(token, value) { // 'created', 'updated', 'touched', 'unchanged'; or 'revoked': it has ended meanwhile
    const { rows: [r] } = await pool.query('select status from pgsession.session_set($1, $2, p_codec => 1)',
      [id(token), Buffer.from(JSON.stringify(value))])
    return r.status
  },
  destroy: (token) => pool.query('select id from pgsession.session_destroy($1)', [JSON.stringify([id(token)])]),
})
