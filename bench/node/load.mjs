// Usage: node load.mjs STORE URL CONNECTIONS
//
// Calls a store, and measures it, as load.go does for those in Go. It reads one request a line from standard
// input, JSON, and answers each with a line; it ends when its input does.
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import process from 'node:process'

if (isMainThread) await main()
else {
  parentPort.once('message', (start) => pace(workerData, start))
  parentPort.postMessage('ready')
}

// pace posts each arrival when it is due. A timer of the event loop is late by up to a millisecond.
function pace (arrivals, start) {
  const cell = new Int32Array(new SharedArrayBuffer(4))
  for (const [i, due] of arrivals.entries()) {
    const wait = Number(start - process.hrtime.bigint()) + due
    if (wait > 0) Atomics.wait(cell, 0, 0, wait / 1e6)
    parentPort.postMessage(i)
  }
  parentPort.close()
}

async function main () {
  const { default: pg } = await import('pg')
  const { stores } = await import('./stores.mjs')
  const [name, connectionString, connections] = process.argv.slice(2)
  const pool = new pg.Pool({ connectionString, max: Number(connections), idleTimeoutMillis: 0 })
  pool.on('error', (err) => console.error(err.message))
  const store = await stores[name](pool)
  const created = []
  let draws = []
  let revision = Date.now() * 1000

  // prepared is the value of the size asked for: "revision" differs between any two writes.
  let prepared = { size: 0 }
  const value = (template) => ({ ...template, revision: (revision++).toString(16).padStart(16, '0') })

  const found = (session) => {
    if (!session) throw new Error('session not found')
    return session
  }
  const newKey = () => randomBytes(32).toString('base64url')

  // operation is what a client calls again and again; false: there is nothing left to do.
  function operation (workload, client) {
    let n = Math.floor(draws.length / 64) * client
    const template = prepared.value
    const key = () => draws[n++ % draws.length]
    const operations = {
      fresh: async () => { found(await store.read(key())) },
      update: () => store.write(key(), value(template)),
      touch: () => store.touch(key(), template),
      create: async () => {
        const made = newKey()
        await store.write(made, value(template))
        created.push(made)
      },
      destroy: async () => {
        if (created.length === 0) return false
        await store.destroy(created.pop())
      },
      mix: () => {
        const deed = prepared.mix[n % prepared.mix.length]
        return operations[deed === 'read' ? 'fresh' : deed]()
      }
    }
    return operations[workload]
  }

  const requests = {
    versions: () => Object.fromEntries(['koa-pg-session', 'connect-pg-simple', 'pg', 'express-session'].map((dependency) =>
      [dependency, JSON.parse(readFileSync(new URL(`node_modules/${dependency}/package.json`, import.meta.url))).version])
      .concat([['node', process.version]])),

    // One operation, for those who check what it does.
    create: async ({ data }) => {
      const key = newKey()
      await store.write(key, JSON.parse(data))
      return key
    },
    read: async ({ key }) => {
      const session = await store.read(key)
      return session ? JSON.stringify(session) : null
    },
    write: ({ key, data }) => store.write(key, JSON.parse(data)).then(() => null),
    touch: ({ key, data }) => store.touch(key, JSON.parse(data)).then(() => null),
    destroy: ({ key }) => store.destroy(key).then(() => null),

    prepare: ({ keys, template, mix }) => {
      draws = keys
      prepared = { value: JSON.parse(template), mix }
      return null
    },

    // A closed loop: each client calls again as soon as it is answered.
    closed: async ({ workload, clients, nanoseconds }) => {
      let calls = 0
      const cpu = process.cpuUsage()
      const start = process.hrtime.bigint()
      const end = start + BigInt(nanoseconds)
      await Promise.all(Array.from({ length: clients }, async (_, client) => {
        const call = operation(workload, client)
        while (process.hrtime.bigint() < end) {
          if (await call() === false) return
          calls++
        }
      }))
      const elapsed = Number(process.hrtime.bigint() - start)
      const { user, system } = process.cpuUsage(cpu)
      return { calls, elapsed, cpu: (user + system) * 1000 }
    },

    // An open loop: requests arrive when they are due, whether or not those before were answered.
    open: async ({ workload, clients, arrivals }) => {
      const calls = Array.from({ length: clients }, (_, client) => operation(workload, client))
      const free = [...calls]
      const waiting = []
      const latencies = []
      let cpu, start
      await new Promise((resolve, reject) => {
        const next = async () => {
          while (free.length > 0 && waiting.length > 0) {
            const call = free.pop()
            const due = arrivals[waiting.shift()]
            call().then(() => {
              latencies.push(Number(process.hrtime.bigint() - start) - due)
              free.push(call)
              if (latencies.length === arrivals.length) resolve()
              else next()
            }, reject)
          }
        }
        const worker = new Worker(new URL(import.meta.url), { workerData: arrivals })
        worker.on('message', (i) => {
          if (i === 'ready') { // what its start takes is nobody's latency
            cpu = process.cpuUsage()
            start = process.hrtime.bigint()
            return worker.postMessage(start)
          }
          waiting.push(i)
          next()
        })
        worker.on('error', reject)
      })
      const elapsed = Number(process.hrtime.bigint() - start)
      const { user, system } = process.cpuUsage(cpu)
      return { calls: latencies.length, elapsed, cpu: (user + system) * 1000, latencies }
    }
  }

  for await (const line of createInterface({ input: process.stdin })) {
    let answer
    try {
      const request = JSON.parse(line)
      answer = { result: await requests[request.do](request) ?? null }
    } catch (err) {
      answer = { error: err.message || String(err) }
    }
    process.stdout.write(JSON.stringify(answer) + '\n')
  }
  process.exit(0)
}
