// A store for koa-session and for koa-generic-session, whose option prefix must be '' for a Go
// application to find the session by the cookie. Both save with the milliseconds that a session lives.
import { sessions } from './sessions.mjs'

export class KoaStore {
  #sessions

  constructor(pool) {
    this.#sessions = sessions(pool)
  }

  get(key) {
    return this.#sessions.get(key)
  }

  async set(key, session, life) {
    const idle = typeof life === 'number' ? life / 1000 : null // koa-session has 'session' too
    await this.#sessions.set(key, session, idle) // 'revoked': it has ended meanwhile, and stays so
  }

  async destroy(key) {
    await this.#sessions.destroy(key)
  }
}
